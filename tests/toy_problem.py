"""A data set and networks small enough for tests that train."""

from types import SimpleNamespace

import keras
import numpy as np

import scc_tf

CLASSES = 3


def points(count=48, seed=0):
    """Float32 points (N, 8) around one centre per class, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    centres = np.random.default_rng(1).normal(size=(CLASSES, 8))
    return (centres[labels] + 0.3 * rng.normal(size=(count, 8))).astype(np.float32), labels


def images(count=48, seed=0):
    """Float32 images (N, 8, 8, 1) around one pattern per class, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    patterns = np.random.default_rng(1).normal(size=(CLASSES, 8, 8, 1))
    return (patterns[labels] + 0.3 * rng.normal(size=(count, 8, 8, 1))).astype(np.float32), labels


def safety_set(count=12, of=points):
    inputs, labels = of(count, seed=7)
    return SimpleNamespace(images=inputs, labels=labels)


def dense_net(seed=0, dtype=None):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(12, activation="relu", name="hidden", dtype=dtype),
            keras.layers.Dense(CLASSES, name="head", dtype=dtype),
        ]
    )


def conv_net(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", use_bias=False, name="conv1"),
            keras.layers.Conv2D(6, 3, use_bias=False, name="conv2"),
            keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name="norm"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, name="head"),
        ]
    )


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compressed(net=None, optimizer=None, loss=None, **settings):
    """A compiled self-compressing network; eager, since tracing takes longer than a few small steps."""
    model = scc_tf.self_compress(dense_net() if net is None else net)
    settings = {"run_eagerly": True, **settings}
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss or cross_entropy(), **settings)
    return model


def values(variables):
    return [np.asarray(variable).copy() for variable in variables]


def formats(model):
    """All bit depths and exponents, by path."""
    layers = scc_tf.training.self_compressing_layers(model)
    return {v.path: np.asarray(v).copy() for layer in layers for f in layer.formats for v in (f.bit_depth, f.exponent)}


def assert_same(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 0, "atol": 0, **tolerance})
