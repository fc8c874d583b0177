"""How ``architecture.dict`` was made. It is frozen: only a new version of the format may have another.

``python -m lab.file_dictionary FILE`` in ``experiments/`` writes what this version of Keras would give.

A model of texts learns from it not only what the networks in `lab.models` are, but also what is likely to change:
widths and bits are not those of the networks alone, but others too.
"""

import copy
import json
import sys
from pathlib import Path

import keras
import numpy as np

from lab import models
from scc_tf.conversion import add_masks, self_compress, share_weights
from scc_tf.export.packed.architecture import compact_architecture
from scc_tf.size import SizeTerm

__all__ = ["build_dictionary"]

_RARE = ("resnet20", "cifar_cnn", "moons_mlp")
_FREQUENT = ("lenet_300_100", "lenet_5", "mnist_cnn")
_BITS = (None, 4.0, 3.0, 4.0, 2.0, None, 6.0, 3.0, 4.0, 5.0, None, 3.0)  # of the frequent ones, one after the other
_BIAS_EXPONENTS = (None, -4, -5, None, -3, -4, -6, -4, -5, -4, -4, -3)


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


def _compressed(plain):
    model = self_compress(plain)
    model.starting_weights = SizeTerm(model).starting_weights
    return compact_architecture(model)[0]


def _variant(text, rng, bits=None, bias_exponent=None):
    """The text of a network that has lost channels, and gained biases where they had none."""
    text = copy.deepcopy(text)
    own = [layer for layer in text["layers"] if layer[0].startswith("scc_tf>")]
    for layer in own:
        settings = layer[2]
        for width in ("filters", "units"):
            if width in settings and layer is not own[-1]:
                settings[width] = max(1, int(settings[width] * rng.uniform(0.1, 1)))
        if rng.random() < 0.3:
            settings.pop("use_bias", None)
        settings.update({"initial_bit_depth": bits} if bits else {})
        settings.update({"bias_exponent": bias_exponent} if bias_exponent else {})
    return text


def build_dictionary():
    """Texts of networks in `lab.models` and of other common layers, the likeliest last, each ended by a 0; bytes."""
    rng = np.random.default_rng(0)
    texts = [_compressed(other_layers())]
    for plain in (getattr(models, name)() for name in _RARE):
        texts += [_compressed(plain), _variant(_compressed(plain), rng, 4.0, -4)]
    networks = {name: getattr(models, name)() for name in _FREQUENT}
    for plain in networks.values():
        texts.append(_variant(compact_architecture(add_masks(plain))[0], rng))
        for clusters in (16, 32):
            texts.append(_variant(compact_architecture(share_weights(plain, clusters=clusters))[0], rng))
    compressed = [_compressed(plain) for plain in networks.values()]
    texts += compressed
    for bits, bias_exponent in zip(_BITS, _BIAS_EXPONENTS, strict=True):
        texts += [_variant(text, rng, bits, bias_exponent) for text in compressed]
    return b"".join(json.dumps(text, separators=(",", ":")).encode() + b"\0" for text in texts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(build_dictionary())
