"""Networks with chains of every kind, small enough to be rebuilt in a test."""

import keras
import numpy as np
from keras import layers


def image_batch(count=16, side=8, channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, side, side, channels)).astype(np.float32)


def randomized(model, seed=0):
    """The same model with weights, statistics included, as a training may leave them."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0, 0.5, weight.shape)
        if weight.name == "moving_variance":
            values = np.exp(values)
        weight.assign(values + (weight.name == "gamma"))
    return model


def residual():
    """Two blocks, the second of another width; conv1 of each is a chain."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    for block, width in (("one", 6), ("two", 8)):
        y = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{block}_conv1")(x)
        y = layers.BatchNormalization(epsilon=1e-5, name=f"{block}_norm1")(y)
        y = layers.ReLU(name=f"{block}_relu1")(y)
        y = layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"{block}_conv2")(y)
        y = layers.BatchNormalization(epsilon=1e-5, name=f"{block}_norm2")(y)
        x = layers.ReLU(name=f"{block}_relu2")(layers.Add(name=f"{block}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return randomized(keras.Model(inputs, layers.Dense(3, name="head")(x)))


def plain():
    """A chain of chains: pooling, padding, bias with normalization, Flatten, Dense; sigmoid is not 0 at 0."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, activation="leaky_relu", name="a")(inputs)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(6, 3, padding="same", name="b")(x)
    x = layers.BatchNormalization(scale=False, name="b_norm")(x)
    x = layers.Activation("sigmoid")(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(4, 3, strides=2, name="c")(x)
    x = layers.BatchNormalization(center=False, name="c_norm")(x)
    x = layers.ReLU()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(7, activation="relu", name="d")(x)
    return randomized(keras.Model(inputs, layers.Dense(3, name="head")(layers.Dropout(0.5)(x))))


def two_readers():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, name="a")(inputs)))
    y = layers.Conv2D(4, 1, name="left")(x)
    z = layers.Conv2D(4, 1, name="right")(x)
    x = layers.GlobalMaxPooling2D()(layers.Concatenate()([y, z]))
    return randomized(keras.Model(inputs, layers.Dense(3, name="head")(x)))
