"""How ``architecture.dict`` was made. It is frozen: only a new version of the format may have another.

``python -m lab.file_dictionary FILE`` in ``experiments/`` writes the dictionary that this version of Keras would give.
"""

import sys
from pathlib import Path

import keras

from lab import models
from scc_tf.conversion import self_compress
from scc_tf.export.packed.architecture import architecture_text
from scc_tf.size import SizeTerm

__all__ = ["build_dictionary", "other_layers"]

_NETWORKS = ("resnet20", "moons_mlp", "cifar_cnn", "lenet_5", "lenet_300_100", "mnist_cnn")  # the likeliest last


def other_layers():
    """One of each of the other twins and of the layers that often stand between them."""
    layers = keras.layers
    image, line = keras.Input((8, 8, 4), name="inputs"), keras.Input((8, 4), name="sequence")
    x = layers.SeparableConv2D(8, 3, strides=2, padding="same", activation="relu", name="separable_conv2d")(image)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise_conv2d")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="gelu", name="conv2d_transpose")(x)
    x = layers.LayerNormalization(epsilon=1e-6, name="layer_normalization")(x)
    x = layers.AveragePooling2D(2, padding="same", name="average_pooling2d")(layers.Dropout(0.5, name="dropout")(x))
    x = layers.Activation("softmax", name="activation")(layers.Concatenate(name="concatenate")([x, x]))
    x = layers.Dense(10, activation="softmax", name="predictions")(layers.GlobalMaxPooling2D(name="max_pool")(x))
    y = layers.Conv1D(8, 3, padding="causal", activation="tanh", name="conv1d")(line)
    y = layers.EinsumDense("abc,cd->abd", (8, 8), bias_axes="d", activation="sigmoid", name="einsum_dense")(y)
    y = layers.Multiply(name="multiply")([layers.Reshape((64,), name="reshape")(y)] * 2)
    return keras.Model([image, line], [x, layers.Dense(1, name="dense")(y)], name="functional")


def build_dictionary():
    """Texts of the networks in `lab.models` and of other common layers, the likeliest last, bytes."""
    plain = [other_layers()] + [getattr(models, name)(seed=0) for name in _NETWORKS]
    compressed = [self_compress(model, bits) for model in plain for bits in (8.0, 4.0)]
    for model in compressed:
        model.starting_weights = SizeTerm(model).starting_weights
    return b"".join(architecture_text(model) for model in compressed)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(build_dictionary())
