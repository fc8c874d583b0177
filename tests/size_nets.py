"""A small self-compressing network for the tests of sizes."""

import keras

from scc_tf import layers


def plain_net(padding="valid"):
    return keras.Sequential(
        [
            keras.Input((7, 6, 2)),
            layers.Conv2D(3, 3, name="a", padding=padding),
            keras.layers.BatchNormalization(),
            layers.Conv2D(4, (3, 2), activation="relu", name="b", padding=padding),
            keras.layers.Flatten(),
            layers.Dense(2, name="c"),
        ]
    )


def set_bits(model, **bits):
    for name, values in bits.items():
        model.get_layer(name).bit_depth.assign(values)
