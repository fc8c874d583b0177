"""The small networks whose files are in ``golden/``: what a format must never change.

``python tests/export/golden_models.py`` writes the files; only a new version of the format may have others.
"""

from pathlib import Path

import keras
import numpy as np

import scc_tf
from scc_tf import layers
from scc_tf.export import packed_bytes
from scc_tf.export.packed import _stored

FOLDER = Path(__file__).parent / "golden"
MASKED = {entry.self_compressing: entry.masked_self_compressing for entry in layers.entries()}
MASKED |= {entry.stock: entry.masked for entry in layers.entries()}


def _assign(layer, codes, exponents):
    layer.bit_depth.assign([24] * len(exponents))
    layer.exponent.assign(exponents)
    layer.kernel.assign(codes.reshape(layer.kernel.shape) * 2.0 ** np.asarray(exponents, np.float64))


def quantized():
    """Sparse, dense, wide and clipped codes; exponents of each form."""
    inputs = keras.Input((6, 6, 2), name="image")
    x = keras.layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(inputs))
    x = layers.Dense(6, name="dense")(keras.layers.Flatten(name="flatten")(x))
    model = scc_tf.SelfCompressingModel(inputs, layers.Dense(3, name="head")(x), name="quantized")
    conv, norm, dense, head = (model.get_layer(name) for name in ("conv", "norm", "dense", "head"))
    places = np.arange(18)
    wide = np.stack([places % 19 - 9, places * 37 % 997 - 500, np.where(places * 7 % 5 > 2, 11, -12), 0 * places], -1)
    _assign(conv, wide.astype(np.float64), [-2.5, -9.0, -3.125, 0.0])
    _assign(dense, (np.arange(64 * 6) % 11 // 10 * 3.0), [-4.0] * 6)
    _assign(head, np.arange(18) % 5 - 2.0, [-3.3, 1.0, 0.1])
    conv.bias.assign([0.25, 0, -1, 3])
    head.bias.assign([1e-3, -0.7, 1e9])
    norm.moving_mean.assign([0.5, 1.1, -2.7, 100.0])
    return model


def shared():
    """Shared weights, some of them pruned, in two layers; a text that the dictionary does not know."""
    inputs = keras.Input((5, 3), name="sequence")
    x = layers.WeightSharingConv1D(4, 2, clusters=5, name="first")(inputs)
    model = keras.Model(inputs, layers.WeightSharingDense(7, clusters=3, name="second")(x), name="shared")
    model.get_layer("first").share([-0.5, -0.1, 0.25, 1.1, 1.2], np.arange(24).reshape(2, 3, 4) * 7 % 11 % 6)
    model.get_layer("second").share([-0.5, 0.25, 1.0], np.arange(28).reshape(4, 7) % 5 % 4)
    return model


def masked():
    """Masks of a stock and of a self-compressing layer; bfloat16; a kernel that is not what its mask made it."""
    inputs = keras.Input((6,), name="inputs")
    x = MASKED[layers.Dense](5, initial_bit_depth=4, name="both")(inputs)
    x = MASKED[keras.layers.Dense](4, dtype="bfloat16", name="short")(x)
    model = scc_tf.SelfCompressingModel(inputs, MASKED[keras.layers.Dense](4, name="stock")(x), name="masked")
    for layer in model.layers[1:]:
        layer.kernel.assign((np.arange(layer.kernel.shape[0] * layer.units) % 7 - 3.0).reshape(layer.kernel.shape))
        layer.prune(np.asarray(layer.kernel) != 2)
    model.layers[1].bit_depth.assign([4] * 5)
    model.layers[1].exponent.assign([0, 0, 1, 0, 0.5])
    model.layers[3].kernel.assign(np.arange(16).reshape(4, 4) / 3 - 2)
    return model


def stateful():
    """A vocabulary, and a constant of the graph."""
    words = keras.layers.StringLookup(vocabulary=["rot", "grün", "blau"], output_mode="multi_hot", name="words")
    inputs = keras.Input((2,), dtype="string", name="colours")
    x = keras.layers.Dense(3, kernel_initializer="ones", name="dense")(words(inputs))
    plain = keras.Model(inputs, x * keras.ops.convert_to_tensor([0.5, 1.0, 3.0]), name="stateful")
    return scc_tf.self_compress(plain, 4)


MODELS = {function.__name__: function for function in (quantized, shared, masked, stateful)}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    arrays = {}
    for name, make in MODELS.items():
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        model = make()
        (FOLDER / f"{name}.scc").write_bytes(packed_bytes(model))
        for place, array in enumerate(_stored(model)):
            arrays[f"{name}_{place}"] = keras.ops.convert_to_numpy(array).astype("float64")
    np.savez_compressed(FOLDER / "arrays.npz", **arrays)
