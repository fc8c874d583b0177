"""Tiny classifiers of points and images, plain and compressed, and data for them."""

import keras
import numpy as np
from toy_problem import CLASSES, conv_net, dense_net, images, points

import scc_tf
from scc_tf.datasets import Dataset, Split


def a_dataset(of=points, name="toy"):
    """Three splits of different points or images."""
    splits = [Split(*of(count, seed)) for count, seed in ((48, 0), (40, 1), (60, 2))]
    return Dataset(name, *splits, tuple("abc"[:CLASSES]))


def outsiders(of=points, count=30):
    """Points or images of no class."""
    inputs, _ = of(count)
    return np.random.default_rng(5).normal(size=inputs.shape).astype(np.float32)


def fitted(model, of=points, steps=15):
    """A model that has learned something, in a moment and without tracing."""
    inputs, labels = of(48, 0)
    model.compile(keras.optimizers.Adam(0.03), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(steps):
        model.run_eagerly = True
        model.train_on_batch(inputs, labels)
    return model


def pruned(model):
    """With a mask that keeps the larger half of the first hidden kernel."""
    masked = scc_tf.add_masks(model)
    kernel = np.abs(np.asarray(masked.get_layer("hidden").kernel))
    masked.get_layer("hidden").prune(kernel > np.median(kernel))
    return masked


def half_dead(model):
    """Self-compressing, with half of the hidden channels dead."""
    compressed = scc_tf.self_compress(model, initial_bit_depth=6)
    compressed.get_layer("hidden").bit_depth.assign([6.0, 0.0] * 6)
    return compressed


FORMS = {
    "plain": lambda model: model,
    "self-compressing": half_dead,
    "weight-sharing": lambda model: scc_tf.share_weights(model, clusters=4),
    "masked": pruned,
    "masked and shared": lambda model: scc_tf.share_weights(pruned(model), clusters=4),
    "removed": lambda model: scc_tf.remove_dead_channels(half_dead(model))[0],
}

__all__ = [
    "FORMS",
    "a_dataset",
    "conv_net",
    "dense_net",
    "fitted",
    "half_dead",
    "images",
    "outsiders",
    "points",
    "pruned",
]
