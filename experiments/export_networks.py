"""Surgery, both exports and reload on networks of many shapes, a third of the channels of every kernel forced dead.

python experiments/export_networks.py

No training: the weights are random, BatchNormalization has random statistics, offsets are zero (else channels beside
zero padding could not go, see scc_tf.remove_channels). For each network: parameters before and after, the largest
difference of the outputs after surgery, after the packed file and in TFLite, relative to the largest output.
"""

import json
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from absl import flags
from flags_from_config import command_line
from keras import layers
from lab import models
from run_script import run

import scc_tf
from scc_tf.atomic import atomic_path
from scc_tf.export import run_tflite
from scc_tf.training import self_compressing_layers

ROOT = Path(__file__).resolve().parent
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record")
flags.DEFINE_integer("seed", 0, "of weights, dead channels and inputs")
flags.DEFINE_float("dead", 1 / 3, "share of the channels of every kernel", 0, 1)


def depthwise_network():
    """As MobileNet: depthwise 3x3, then 1x1."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6)(layers.BatchNormalization()(x))
    for filters, strides in ((32, 1), (64, 2), (64, 1)):
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU(6)(layers.BatchNormalization()(x))
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
        x = layers.ReLU(6)(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)), name="depthwise")


def concatenating_network():
    """As Inception and DenseNet: branches side by side, then all features so far."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    for _ in range(2):
        branches = [layers.Conv2D(12, size, padding="same", activation="relu")(x) for size in (1, 3, 5)]
        x = layers.MaxPooling2D()(layers.Concatenate()([x, *branches]))
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)), name="concatenating")


def u_network():
    """As U-Net: down, up by transposed convolution, with the features of the way down."""
    inputs = keras.Input((32, 32, 1))
    down1 = layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    down2 = layers.Conv2D(24, 3, padding="same", activation="relu")(layers.MaxPooling2D()(down1))
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(layers.MaxPooling2D()(down2))
    for filters, down in ((24, down2), (12, down1)):
        x = layers.Conv2DTranspose(filters, 2, strides=2, padding="same")(x)
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(layers.Concatenate()([x, down]))
    return keras.Model(inputs, layers.Conv2D(2, 1)(x), name="u_net")


def application(function, **settings):
    return lambda: function(weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None, **settings)


NETWORKS = {
    "MNIST CNN": models.mnist_cnn,
    "LeNet-5": models.lenet_5,
    "ResNet-20": models.resnet20,
    "depthwise": depthwise_network,
    "concatenating": concatenating_network,
    "U-Net": u_network,
    "MobileNetV2 0.35": application(keras.applications.MobileNetV2, alpha=0.35),
    "EfficientNetB0": application(keras.applications.EfficientNetB0),
    "DenseNet121": application(keras.applications.DenseNet121),
}


def prepared(build, seed, dead):
    """The self-compressing network with random statistics and dead channels."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = scc_tf.self_compress(build(), initial_bit_depth=6)
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(rng.uniform(0.3, 1.5, weight.shape))
        elif weight.name == "gamma":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape))
    for layer in self_compressing_layers(model):
        for fmt in layer.formats:
            chosen = rng.permutation(fmt.channels) < dead * fmt.channels
            fmt.bit_depth.assign(np.where(chosen, 0.0, 6.0))
    return model, rng.normal(size=(4, *model.input_shape[1:])).astype("float32")


def difference(outputs, expected):
    return float(np.abs(np.asarray(outputs) - expected).max() / np.abs(expected).max())


def measure(build, seed, dead, folder):
    model, images = prepared(build, seed, dead)
    expected = model.predict(images, verbose=0)
    started = time.perf_counter()
    smaller, report = scc_tf.remove_dead_channels(model)
    seconds = time.perf_counter() - started
    packed = scc_tf.save_packed(smaller, folder / "model.scc")
    smaller.save(folder / "model.keras")
    tflite = scc_tf.export_tflite(smaller, folder / "model.tflite")
    return {
        "parameters": report.parameters,
        "channels": [sum(n) for n in zip(*report.channels.values(), strict=True)],
        "kept_dead": sum(count for count, _ in report.kept_dead.values()),
        "surgery_seconds": seconds,
        "surgery_difference": difference(smaller.predict(images, verbose=0), expected),
        "keras_difference": difference(keras.saving.load_model(folder / "model.keras")(images), expected),
        "scc_difference": difference(scc_tf.load_packed(folder / "model.scc").predict(images, verbose=0), expected),
        "tflite_difference": difference(run_tflite(folder / "model.tflite", images), expected),
        "scc_bytes": packed.stored_bytes,
        "tflite_bytes": tflite.bytes,
        "tflite_float32_bytes": tflite.float32_bytes,
        "tflite_fallbacks": len(tflite.fallbacks),
    }


def main():
    values = flags.FLAGS
    rows = {}
    for name, build in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = row = measure(build, values.seed, values.dead, Path(folder))
        print(
            f"{name:18} parameters {row['parameters'][0]:>9,} -> {row['parameters'][1]:>9,}  differences: "
            f"surgery {row['surgery_difference']:.0e}, .keras {row['keras_difference']:.0e}, "
            f".scc {row['scc_difference']:.0e}, TFLite {row['tflite_difference']:.0e}  "
            f".scc {row['scc_bytes']:>9,} B, .tflite {row['tflite_bytes']:>9,} B, "
            f"float32 {row['tflite_float32_bytes']:>10,} B"
        )
    record = {"command": command_line(__name__), "networks": rows}
    with atomic_path(Path(values.out_dir) / "export_networks.json") as partial:
        partial.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    run(main)
