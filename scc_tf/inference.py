"""The one way in which a model answers: a compiled forward pass in batches of bounded memory.

A functional Keras model that is called eagerly keeps every activation of the batch until the call is over; compiled,
it keeps what the next operation needs. Batches are as large as the largest activation of the model allows. Only where
all activations of all examples are few is the model called as it is, for compiling takes longer than that. It depends
on nothing but the model and the number of examples: the same call gives the same bits, whatever came before it.
"""

import functools
import math
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from scc_tf.arguments import check_array, received
from scc_tf.keras_private import all_layers, calls_of

__all__ = [
    "arranged",
    "batch_for",
    "batches",
    "check_inputs",
    "check_model",
    "check_weights",
    "compiled",
    "forward",
    "outputs",
    "packed",
    "run_batch",
    "tensors",
]

BATCH_SIZE = 500
ACTIVATION_BYTES = 2**27  # of the largest activation of a batch; a pass holds a few of that size
FEW_BYTES = 2**24  # of all activations of all examples
_BAKED_IN = ("activation", "dtype_policy", "mean", "variance")  # of layers, into what is compiled; two are adapted


def outputs(model, inputs, batch_size=None):
    """What a model answers, in inference mode; the last bits may differ from those of an eager call.

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
    arrays = arranged(model, inputs)
    size = batch_for(model, batch_size, arrays=arrays)
    answer = compiled(model, "answers", lambda: lambda batch: forward(model, batch), arrays)
    parts = [run_batch(model, answer, batch, size) for batch in batches(arrays, size)]
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def run_batch(model, function, batch, size):
    """What a function of tensors makes of one batch, as NumPy arrays; the batch of a fixed size is filled up."""
    count = len(batch[0])
    if model.inputs[0].shape[0] is not None and count < size:
        batch = [np.resize(array, (size, *np.shape(array)[1:])) for array in batch]
    return keras.tree.map_structure(lambda tensor: np.asarray(tensor)[:count], function(tensors(model, batch)))


def batch_for(model, batch_size=None, limit=BATCH_SIZE, arrays=()):
    """Examples that may pass through a model at once.

    Args:
        model: built Sequential or functional model; one whose inputs have a fixed batch takes that.
        batch_size: what the caller wants, at least 1; None: as many as the memory of the largest activation allows.
        limit: most examples, for None.
        arrays: the inputs, in the order of ``model.inputs``: they tell the sides that the model leaves open.
    """
    fixed = next((tensor.shape[0] for tensor in model.inputs if tensor.shape[0] is not None), None)
    if fixed is not None or batch_size is not None:
        return fixed or batch_size
    return max(1, min(limit, ACTIVATION_BYTES // (4 * max(_sizes(model, arrays), default=1))))


def batches(inputs, size):
    """Split the arrays of a structure of inputs into batches of at most ``size`` examples, in order."""
    count = len(keras.tree.flatten(inputs)[0])
    for start in range(0, count, size):
        yield keras.tree.map_structure(lambda array: array[start : start + size], inputs)  # noqa: B023 (used at once)


def arranged(model, inputs, name="inputs"):
    """The arrays of ``inputs``, one, a list or by names as the model takes them, in the order of ``model.inputs``.

    Raises:
        ValueError: if there is not one array for each input, or the model has no known inputs.
    """
    if not getattr(model, "inputs", None):
        raise ValueError(f"Expected a built functional or Sequential model. {received('model', model)}")
    wanted, structure = model.inputs, getattr(model, "input", None)
    if isinstance(inputs, Mapping):
        if not isinstance(structure, Mapping):
            structure = {tensor.name: tensor for tensor in wanted}
        if not set(structure) <= set(inputs):
            raise ValueError(
                f"Expected {name} to hold an array for each of the inputs {sorted(structure)} of {model.name!r}. "
                f"Received: {name} with {sorted(inputs)}"
            )
        given = keras.tree.flatten({key: inputs[key] for key in structure})
        found = {id(tensor): array for tensor, array in zip(keras.tree.flatten(structure), given, strict=True)}
        arrays = [found[id(tensor)] for tensor in wanted]
    elif len(wanted) > 1:
        arrays = keras.tree.flatten(inputs)
    else:
        alone = isinstance(inputs, list | tuple) and len(inputs) == 1 and np.ndim(inputs[0]) == len(wanted[0].shape)
        arrays = [inputs[0] if alone else inputs]
    if len(arrays) != len(wanted):
        raise ValueError(
            f"Expected {name} to hold one array for each of the {len(wanted)} inputs of {model.name!r}. "
            f"{received(name, inputs)}"
        )
    return arrays


def packed(model, arrays):
    """What `arranged` has listed, in the structure that the model takes."""
    structure = getattr(model, "input", None)
    alone = len(arrays) == 1 and not isinstance(structure, Mapping)
    return arrays[0] if alone else keras.tree.pack_sequence_as(structure, arrays)


def check_inputs(name, inputs, model, least=1):
    """Inputs that a model takes: see `arranged`; of its shapes, finite, at least ``least`` and equally many examples.

    Only what it cannot compute is refused. Numbers of another type are fine, as in ``fit``; so is a last axis of one
    that is missing.

    Returns:
        List of arrays in the order of ``model.inputs``, of the ranks of these; values as they came.

    Raises:
        ValueError: if the model does not take them.
    """
    pairs = zip(arranged(model, inputs, name), model.inputs, strict=True)
    arrays = [_fitting(name, array, tensor, least) for array, tensor in pairs]
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(
            f"Expected {name} to hold equally many examples for every input. "
            f"Received: {name} with {[len(array) for array in arrays]}"
        )
    return arrays


def _fitting(name, values, tensor, least):
    array = np.asarray(values) if tensor.dtype == "string" else check_array(name, values, least=least)
    if array.dtype.kind == "f" and keras.backend.is_float_dtype(tensor.dtype):
        narrower = array.dtype.itemsize > tf.as_dtype(tensor.dtype).size
        if narrower and (largest := np.abs(array).max(initial=0)) > tf.as_dtype(tensor.dtype).max:
            raise ValueError(
                f"Expected {name} to be finite as {tensor.dtype}. {received(name, array)}, up to {largest:g}"
            )
    wanted = tuple(tensor.shape)[1:]
    if array.ndim == len(wanted) and wanted[-1:] == (1,):
        array = array[..., None]
    elif array.ndim == len(wanted) + 2 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != len(wanted) + 1 or any(w not in (None, g) for w, g in zip(wanted, array.shape[1:], strict=True)):
        raise ValueError(
            f"Expected {name} of shape {(None, *wanted)}, which the model takes. {received(name, np.asarray(values))}"
        )
    return array


def check_model(model):
    """Refuse what is no Keras model."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected model to be a Keras model. {received('model', model)}")


def check_weights(model):
    """Refuse a model of which a weight is NaN or infinite; the message names it."""
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            values = keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))
            if not np.isfinite(values).all():
                raise ValueError(
                    f"Expected the weights of {model.name!r} to be finite. "
                    f"Received: {weight.path} with {np.sum(~np.isfinite(values))} values that are NaN or infinite"
                )


def forward(model, batch, training=False):
    """Call a model on the tensors of a batch, listed in the order of ``model.inputs``; to be compiled."""
    return model(packed(model, batch), training=training)


def tensors(model, arrays):
    """The inputs of a compiled pass: of the model's own types, so that one trace serves float64 and float32."""
    return [
        tf.convert_to_tensor(array) if tensor.dtype == "string" else tf.cast(array, tensor.dtype)
        for array, tensor in zip(arrays, model.inputs, strict=True)
    ]


def compiled(model, name, make, arrays, state=()):
    """A compiled function that stays with a model until its layers, their constants, or ``state``, are others.

    Removing channels exchanges the layers of a model; what was compiled before would go on with the old ones.

    Args:
        model: Keras model.
        name: of the function.
        make: returns the function to compile.
        arrays: all examples that will pass through it, in the order of ``model.inputs``; None if they are not known.
        state: values other than the layers that the function was made for.

    Returns:
        ``tf.function``; where the work is little, what ``make`` returns, as it is.
    """
    if arrays is not None and 4 * len(arrays[0]) * sum(_sizes(model, arrays)) <= FEW_BYTES:
        return make()
    functions = vars(model).get("_scc_tf_functions")
    if functions is None:
        functions = _Functions()
        object.__setattr__(model, "_scc_tf_functions", functions)
    parts = [part for layer in all_layers(model) for part in (layer, *(getattr(layer, n, None) for n in _BAKED_IN))]
    found = functions.by_name.get(name)
    if found is None or found[1] != state or [*map(id, found[0])] != [*map(id, parts)]:
        function = functools.partial(make())  # without code of its own, by which TensorFlow would count tracings
        found = functions.by_name[name] = (parts, state, tf.function(function, reduce_retracing=True))
    return found[2]


class _Functions:
    """A plain object, in which Keras looks for nothing to track or save."""

    def __init__(self):
        self.by_name = {}


def _sizes(model, arrays):
    """Numbers in each activation of one example, at most: a side that the model leaves open is as long as it begins."""
    open_sides = [
        side
        for tensor, array in zip(model.inputs, arrays, strict=False)
        for wanted, side in zip(tensor.shape[1:], np.shape(array)[1:], strict=False)
        if wanted is None
    ]
    factor = math.prod(open_sides)
    calls = [call for layer in all_layers(model, include_self=False) for call in calls_of(layer)]
    shapes = [tensor.shape[1:] for _, made in calls for tensor in made]
    return [math.prod(side or 1 for side in shape) * (factor if None in shape else 1) for shape in shapes]
