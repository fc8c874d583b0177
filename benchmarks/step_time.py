"""What does self-compression cost per training step?

python benchmarks/step_time.py --batch_size=512 --rounds=30
python benchmarks/step_time.py --model=resnet20 --batch_size=128 --jit_compile=false --out=step_time_resnet20.json

Times the compiled train function that ``fit`` calls, on synthetic images, for the plain network, for its
self-compressing twin (gamma > 0), for the twin with the entropy model of the size, and, for information, for the twin
with a safety batch of 64 beside the batch. They take turns, so that a slow spell of the machine meets all of them.
Prints the median step of each, and the
median and quartiles of the ratio to the plain step of the same round. Nothing is asserted.
"""

import json
import os
import platform
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import scc_tf
from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "experiments"))

from lab import models as networks  # noqa: E402

SAFETY_BATCH = 64
JIT = {"auto": "auto", "true": True, "false": False}

flags.DEFINE_enum("model", "mnist_cnn", ["mnist_cnn", "lenet_5", "cifar_cnn", "resnet20"], "network")
flags.DEFINE_integer("batch_size", 512, "examples per step", lower_bound=1)
flags.DEFINE_enum("jit_compile", "auto", list(JIT), "as in Keras's compile; auto compiles with XLA where it can")
flags.DEFINE_integer("rounds", 30, "measurements of each step", lower_bound=1)
flags.DEFINE_integer("warm_up", 3, "steps of each before the first measurement", lower_bound=1)
flags.DEFINE_string("out", str(ROOT / "experiments" / "results" / "step_time.json"), "file of the record")


def compiled_models(plain, jit_compile):
    """The networks to compare, by name; the first is what the others are compared with."""
    settings = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "metrics": ["accuracy"]}
    rng = np.random.default_rng(1)
    safety_set = SimpleNamespace(images=rng.random((1000, *plain.input_shape[1:])), labels=rng.integers(0, 10, 1000))
    safety = {"lambda_safety": 0.1, "safety_set": safety_set, "safety_batch_size": SAFETY_BATCH}
    compared = {
        "plain": (plain, {}),
        "self-compressing": (scc_tf.self_compress(plain), {"gamma": 0.01}),
        "entropy model": (
            scc_tf.self_compress(plain, 3, exponent_per="kernel", bias_exponent=-4),
            {"gamma": 1.0, "size_model": "entropy"},
        ),
        "with safety": (scc_tf.self_compress(plain), {"gamma": 0.01, **safety}),
    }
    for model, own in compared.values():
        model.compile(keras.optimizers.Adam(), jit_compile=jit_compile, **settings, **own)
    return {name: model for name, (model, _) in compared.items()}


def stepper(model, images, labels):
    """A function that takes one training step as ``fit`` does, waits for its logs, and returns the seconds."""
    model.fit(images, labels, batch_size=len(labels), verbose=0)  # builds metrics and optimizer
    train = model.make_train_function() or model.train_function
    batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat().prefetch(2))

    def step():
        started = time.perf_counter()
        for value in train(batches).values():
            float(value)
        return time.perf_counter() - started

    return step


def measure(steps, rounds, warm_up):
    """Seconds ``{name: (rounds,)}``; the networks take turns."""
    for _ in range(warm_up):
        for step in steps.values():
            step()
    seconds = [[step() for step in steps.values()] for _ in range(rounds)]
    return dict(zip(steps, np.transpose(seconds), strict=True))


def main(argv):
    """Measure, print, and write the record."""
    del argv
    values = flags.FLAGS
    rng = np.random.default_rng(0)
    plain = getattr(networks, values.model)(seed=0)
    images = rng.random((values.batch_size, *plain.input_shape[1:]), np.float32)
    labels = rng.integers(0, 10, values.batch_size)
    models = compiled_models(plain, JIT[values.jit_compile])
    seconds = measure(
        {name: stepper(model, images, labels) for name, model in models.items()}, values.rounds, values.warm_up
    )
    rows = {}
    print(f"{'':18}{'median step, ms':>16}{'ratio to plain: median':>24}{'quartiles':>16}")
    for name, taken in seconds.items():
        low, middle, high = np.quantile(taken / seconds["plain"], [0.25, 0.5, 0.75])
        rows[name] = {"median_ms": 1e3 * float(np.median(taken)), "ratio": middle, "ratio_quartiles": [low, high]}
        print(f"{name:18}{rows[name]['median_ms']:>16.1f}{middle:>24.3f}{f'{low:.3f}-{high:.3f}':>16}")
    network = "" if values.model == "mnist_cnn" else f"--model={values.model} "
    record = {
        "command": f"python benchmarks/step_time.py {network}--batch_size={values.batch_size} --rounds={values.rounds} "
        f"--warm_up={values.warm_up} --jit_compile={values.jit_compile}",
        "jit_compile": {name: bool(model.jit_compile) for name, model in models.items()},
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
        "rows": rows,
        "seconds": {name: taken.tolist() for name, taken in seconds.items()},
    }
    with atomic_path(values.out) as partial:
        partial.write_text(json.dumps(record, indent=1))
    print(f"Record: {values.out}")


if __name__ == "__main__":
    app.run(main)
