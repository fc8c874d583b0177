"""`scc_tf.compress` with no more than four arguments, against the recipe that a user had to type before it.

TF_ENABLE_ONEDNN_OPTS=1 python experiments/compress_networks.py --data_dir=… --models_dir=…

Four networks: the MNIST CNN (trained here for two epochs), the ResNet-20 of saved_models, MLPerf Tiny's ResNet-8 (from
--models_dir, as it was published), and a small dense network on the digits of scikit-learn. The recipe is the one that
the README had: 27 lines, settings of the main job. Both train for the same number of epochs towards the same size. Test
data are looked at once for each. Finished runs are in --work_dir; the record is replaced after every run.
"""

import json
import time
from pathlib import Path

import keras
import numpy as np
from absl import flags
from flags_from_config import command_line
from lab import datasets, models
from run_script import run
from sklearn.datasets import load_digits

import scc_tf
from scc_tf.atomic import atomic_path
from scc_tf.datasets import Split

ROOT = Path(__file__).resolve().parent
flags.DEFINE_list("networks", ["mnist_cnn", "digits", "resnet20", "resnet8"], "which of the four")
flags.DEFINE_list("seeds", ["0"], "seeds of the compression")
flags.DEFINE_string("data_dir", "", "folder that holds cifar10; MNIST is embedded")
flags.DEFINE_string("models_dir", "", "folder that holds resnet8.h5")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record")
flags.DEFINE_string("work_dir", str(ROOT / "work" / "compress_networks"), "folder of the finished runs")
TARGETS = {"mnist_cnn": (4_000, 4), "digits": (3_000, 40), "resnet20": (60_000, 3), "resnet8": (40_000, 5)}


def mnist_cnn(data_dir, models_dir):
    """The main job's network after two epochs, and MNIST."""
    data = datasets.load("mnist")
    keras.utils.set_random_seed(0)
    model = models.mnist_cnn(seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"], jit_compile=False)
    model.fit(*data.train, batch_size=64, epochs=2, verbose=0)
    return model, data.train, data.test


def resnet20(data_dir, models_dir):
    """The float network of saved_models, and CIFAR-10 in [0, 1]."""
    data = datasets.load("cifar10", data_dir or None)
    return (
        keras.models.load_model(ROOT.parent / "saved_models" / "resnet20.keras", compile=False),
        data.train,
        data.test,
    )


def resnet8(data_dir, models_dir):
    """MLPerf Tiny's network, and CIFAR-10 as it takes it: 0 to 255."""
    data = datasets.load("cifar10", data_dir or None)
    scaled = [split._replace(images=255 * split.images) for split in (data.train, data.test)]
    return keras.models.load_model(Path(models_dir) / "resnet8.h5", compile=False), *scaled


def digits(data_dir, models_dir):
    """A dense network on the 64 pixels of scikit-learn's digits, as columns of a table; every fifth is for test."""
    pixels, labels = load_digits(return_X_y=True)
    pixels, test = (pixels / 16).astype(np.float32), np.arange(len(labels)) % 5 == 0
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((64,)),
        *(keras.layers.Dense(n, "relu") for n in (128, 64)),
        keras.layers.Dense(10, "softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(pixels[~test], labels[~test], epochs=30, verbose=0)
    return model, *(Split(pixels[rows], labels[rows]) for rows in (~test, test))


def by_compress(model, train, target, epochs, seed):
    """The one call."""
    small = scc_tf.compress(
        model, (train.images, train.labels), target_bytes=target, epochs=epochs, seed=seed, verbose=2
    )
    print(small)
    return small.compressed, json.loads(small.to_json())


def by_recipe(model, train, target, epochs, seed):
    """What the README had users type: settings of the main job, size named."""
    keras.utils.set_random_seed(seed)
    held = len(train.labels) // 10  # as many as compress holds out
    images, labels = train.images[held:], train.labels[held:]
    steps = epochs * -(-len(labels) // 64)
    schedule = keras.optimizers.schedules.CosineDecay
    softmax = getattr(model.layers[-1], "activation", None) is keras.activations.softmax
    safety = scc_tf.select_safety_set(model, images, labels, size=min(1000, len(labels) // 4), seed=seed, verbose=0)
    watch = scc_tf.callbacks.SafetyMonitor(safety, every=200, statistics_images=images[:4096])
    keep = scc_tf.callbacks.KernelRestoration(watch, threshold=0.05, patience=5)
    steer = scc_tf.callbacks.TargetSize(target, every=100, approach=steps // 2)
    cut = scc_tf.callbacks.ChannelRemoval(every=200)
    small = scc_tf.self_compress(model, 4, exponent_per="kernel", bias_exponent=-4)
    small.compile(
        keras.optimizers.Adam(schedule(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax),
        metrics=["accuracy"],
        gamma=0.3,
        size_model="entropy",
        lambda_safety=0.03,
        safety_set=safety,
        safety_batch_size=8,
        format_optimizer=keras.optimizers.Adam(schedule(1e-2, 3 * steps // 4)),
        jit_compile=False,
    )
    small.fit(images, labels, batch_size=64, epochs=epochs, callbacks=[watch, steer, keep, cut], verbose=2)
    finished, fit = scc_tf.finish_to_bytes(small, images[:4096], target)
    return finished, {"stored_bytes": fit.stored_bytes, "safe": fit.safe, "fit": str(fit)}


def accuracy(model, split):
    answers = model.predict(split.images, batch_size=500, verbose=0)
    return float(np.mean(answers.argmax(axis=-1) == split.labels))


def row_of(name, seed, values):
    """Both ways for one network, from the work folder where they are finished."""
    path = Path(values.work_dir) / f"{name}-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    model, train, test = globals()[name](values.data_dir, values.models_dir)
    target, epochs = TARGETS[name]
    row = {"network": name, "seed": seed, "target_bytes": target, "epochs": epochs}
    row["float"] = {"float32_bytes": 4 * model.count_params(), "test_accuracy": accuracy(model, test)}
    for way, function in (("compress", by_compress), ("recipe", by_recipe)):
        started = time.monotonic()
        finished, found = function(model, train, target, epochs, seed)
        row[way] = {"test_accuracy": accuracy(finished, test), "seconds": time.monotonic() - started, **found}
        print(name, way, row[way]["stored_bytes"], row[way]["test_accuracy"], flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(row))
    return row


def main():
    values, rows = flags.FLAGS, []
    for name in values.networks:
        for seed in values.seeds:
            rows.append(row_of(name, int(seed), values))
            with atomic_path(Path(values.out_dir) / "compress_networks.json") as partial:
                partial.write_text(json.dumps({"command": command_line(__name__), "rows": rows}, indent=1))


if __name__ == "__main__":
    run(main)
