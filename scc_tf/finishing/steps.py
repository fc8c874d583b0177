"""Finer steps of the kernels, or coarser ones, and how near the answers then come to those of the original network."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from scc_tf.inference import arranged, outputs
from scc_tf.layers import self_compressing_layers

__all__ = ["Fidelity", "bits_to_spare", "finer_steps", "refine_steps"]

MOST_BITS = 24  # float32 holds no wider integers
_PROBES = 256  # examples that are answered


def refine_steps(model, by, exponent_places=16):
    """Make the steps of all kernels finer, or coarser, and give the bit depths what keeps their range.

    ``e -> floor((e - by) * 2**places) / 2**places``, and ``b`` grows by as much as ``e`` falls. Frozen layers and
    channels without bits stay as they are; no other gets less than one bit.

    Args:
        model: Keras model; exponents and bit depths of its self-compressing layers, nested ones included, are assigned.
        by: bits; negative for coarser steps.
        exponent_places: binary places that the new exponents have.

    Example:
        >>> import keras, scc_tf
        >>> model = keras.Sequential([keras.Input((3,)), scc_tf.layers.Dense(1, initial_bit_depth=4)])
        >>> _ = model.layers[0].exponent.assign([-2.0])
        >>> refine_steps(model, 1.5)
        >>> float(model.layers[0].exponent[0]), float(model.layers[0].bit_depth[0])
        (-3.5, 5.5)
    """
    places = 2.0**exponent_places
    for fmt in _formats(model):
        bits, exponents = ops.convert_to_numpy(fmt.bit_depth), ops.convert_to_numpy(fmt.exponent)
        finer = np.where(bits > 0, np.floor((exponents - by) * places) / places, exponents).astype(np.float32)
        fmt.exponent.assign(finer)
        fmt.bit_depth.assign(np.clip(bits + exponents - finer, np.minimum(bits, 1.0), MOST_BITS))
    if getattr(model, "size_model", None) == "entropy":
        model.fit_bit_depths()


@contextlib.contextmanager
def finer_steps(model, by, exponent_places):
    """In this block the steps of a model are finer, see `refine_steps`; afterwards they are as before.

    Those of rounded biases are finer, too. The model must not be called in the block, since a compiled pass keeps them.
    """
    kept = [(v, ops.convert_to_numpy(v).copy()) for fmt in _formats(model) for v in (fmt.bit_depth, fmt.exponent)]
    rounded = [layer for layer in self_compressing_layers(model) if layer.trainable and layer.has_quantized_bias]
    biases = [(layer, layer.bias_exponent) for layer in rounded]
    try:
        refine_steps(model, by, exponent_places)
        for layer, exponent in biases:
            layer.bias_exponent = max(exponent - round(by), -24)
        yield
    finally:
        for variable, values in kept:
            variable.assign(values)
        for layer, exponent in biases:
            layer.bias_exponent = exponent


def bits_to_spare(model):
    """By how much the steps of all kernels can be finer at most, bits."""
    largest = [float(ops.max(fmt.bit_depth)) for fmt in _formats(model)]
    return MOST_BITS - max(largest, default=MOST_BITS)


def _formats(model):
    return [fmt for layer in self_compressing_layers(model) if layer.trainable for fmt in layer.formats]


class Fidelity:
    """How far the answers of other models are from those of one network.

    The distance of two sets of answers is ``sqrt(1 - cos^2)`` of the angle between them, both seen from the means of
    the network's outputs, and 1 beyond a right angle. A common scale does not count: training changes it at will.

    Args:
        network: Keras model that gives the right answers.
        inputs: examples as the network takes them, or a dataset of batches of them; about 256 are answered.
    """

    def __init__(self, network, inputs):
        self._inputs = arranged(network, _first(inputs) if isinstance(inputs, tf.data.Dataset) else inputs)
        stride = max(1, len(self._inputs[0]) // _PROBES)
        self._inputs = [array[::stride][:_PROBES] for array in self._inputs]
        expected = _flat(outputs(network, self._inputs))
        self._means = [array.mean(axis=0) for array in expected]
        self._expected = self._seen_from_the_means(expected)

    def distance(self, model):
        """Of a model's answers, in [0, 1]; 0 if they are the same."""
        answers = self._seen_from_the_means(_flat(outputs(model, self._inputs)))
        norms = np.linalg.norm(answers) * np.linalg.norm(self._expected)
        cosine = np.dot(answers, self._expected) / norms if norms > 0 else 0.0
        return float(np.sqrt(max(0.0, 1.0 - max(cosine, 0.0) ** 2)))

    def _seen_from_the_means(self, arrays):
        return np.concatenate([(array - mean).ravel() for array, mean in zip(arrays, self._means, strict=True)])


def _first(dataset):
    """The first examples of a dataset of batches."""
    parts, count = [], 0
    for element in dataset:
        parts.append(tree.map_structure(np.asarray, keras.utils.unpack_x_y_sample_weight(element)[0]))
        count += len(tree.flatten(parts[-1])[0])
        if count >= _PROBES:
            break
    return tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def _flat(answers):
    return [np.asarray(array, np.float64) for array in tree.flatten(answers)]
