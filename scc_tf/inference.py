"""The one way in which a model answers: a compiled forward pass in batches of bounded memory.

A functional Keras model that is called eagerly keeps every activation of the batch until the call is over; compiled,
it keeps what the next operation needs. Batches are as large as the largest activation of the model allows.
"""

import math

import keras
import numpy as np
import tensorflow as tf

__all__ = ["batch_for", "batches", "outputs"]

BATCH_SIZE = 500
ACTIVATION_BYTES = 2**27  # of the largest activation of a batch; a pass holds a few of that size


def batch_for(model, batch_size=None, limit=BATCH_SIZE):
    """Examples that may pass through a model at once.

    Args:
        model: built Sequential or functional model.
        batch_size: what the caller wants, at least 1; None: as many as the memory of the largest activation allows.
        limit: most examples, for None.

    Returns:
        int. A model whose inputs have a fixed batch takes that.
    """
    fixed = next((tensor.shape[0] for tensor in model.inputs if tensor.shape[0] is not None), None)
    if fixed is not None or batch_size is not None:
        return fixed or batch_size
    sizes = [_size(tensor) for layer in model._flatten_layers(include_self=False) for tensor in _made_by(layer)]
    return max(1, min(limit, ACTIVATION_BYTES // (4 * max(sizes, default=1))))


def batches(inputs, size):
    """Split the arrays of a structure of inputs into batches of at most ``size`` examples, in order."""
    count = len(keras.tree.flatten(inputs)[0])
    for start in range(0, count, size):
        yield keras.tree.map_structure(lambda array: array[start : start + size], inputs)  # noqa: B023 (used at once)


def outputs(model, inputs, batch_size=None):
    """What a model answers, in inference mode.

    The answers may differ from those of an eager call in the last bits.

    Args:
        model: built Sequential or functional model.
        inputs: array, or the structure of arrays that the model takes, ``N`` examples each.
        batch_size: see `batch_for`.

    Returns:
        NumPy arrays in the structure of the model's outputs, ``N`` rows each.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> outputs(model, np.ones((5, 2))).shape
        (5, 3)
    """
    size, forward = batch_for(model, batch_size), _forward_of(model)
    parts = [_answers(forward, batch, size, model) for batch in batches(inputs, size)]
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def _answers(forward, batch, size, model):
    count = len(keras.tree.flatten(batch)[0])
    if model.inputs[0].shape[0] is not None and count < size:  # a fixed batch is filled up
        batch = keras.tree.map_structure(lambda array: np.resize(array, (size, *np.shape(array)[1:])), batch)
    return keras.tree.map_structure(lambda tensor: np.asarray(tensor)[:count], forward(batch))


class _Forward:
    """The compiled pass of one model, kept on the model; a plain object, in which Keras looks for nothing."""

    def __init__(self, model):
        self.layers = [*model._flatten_layers()]
        self.dtypes = [tensor.dtype for tensor in model.inputs]
        self.call = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)

    def __call__(self, batch):
        arrays = keras.tree.flatten(batch)
        if len(arrays) == len(self.dtypes):  # one trace for float64 and float32 arrays
            tensors = [_tensor(array, dtype) for array, dtype in zip(arrays, self.dtypes, strict=True)]
            batch = keras.tree.pack_sequence_as(batch, tensors)
        return self.call(batch)

    def is_of(self, model):
        """Whether the model still has the layers that were compiled; removing channels exchanges them."""
        layers = [*model._flatten_layers()]
        return len(layers) == len(self.layers) and all(a is b for a, b in zip(layers, self.layers, strict=True))


def _forward_of(model):
    forward = vars(model).get("_scc_tf_forward")
    if forward is None or not forward.is_of(model):
        forward = _Forward(model)
        object.__setattr__(model, "_scc_tf_forward", forward)
    return forward


def _tensor(array, dtype):
    return tf.convert_to_tensor(array) if dtype == "string" else tf.cast(array, dtype)


def _made_by(layer):
    for node in layer._inbound_nodes:
        yield from node.output_tensors


def _size(tensor):
    return math.prod(size or 1 for size in tensor.shape[1:])
