"""How large and how fast is a self-compressed network as a TFLite file, against the original in float32?

python benchmarks/tflite_latency.py

Writes the original MNIST network with float32 weights, and the compressed one without its dead channels in each way
to compute, then runs them with LiteRT at batch 1. They take turns, so that a slow spell of the machine meets all of
them. Prints the length of each file, its median latency with quartiles, and the median and quartiles of the ratio to
the original in the same round. What the files answer is measured by experiments/mnist_export.py.
Which integer kernels are fast depends on the processor. Nothing is asserted.
"""

import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import ai_edge_litert
import keras
import tensorflow as tf
from absl import app, flags

import scc_tf
from scc_tf.atomic import atomic_path
from scc_tf.export import export_tflite, measure_latency

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "experiments"))

from lab import datasets, models  # noqa: E402
from lab.processor import processor  # noqa: E402

CALIBRATION_IMAGES = 200

flags.DEFINE_string("model", str(ROOT / "saved_models" / "mnist_safe.scc"), "compressed MNIST network, .scc file")
flags.DEFINE_integer("threads", 1, "threads of the interpreter", lower_bound=1)
flags.DEFINE_integer("rounds", 200, "measurements of each file", lower_bound=1)
flags.DEFINE_integer("calls", 10, "calls in one measurement", lower_bound=1)
flags.DEFINE_integer("warm_up", 50, "calls of each file before the first measurement", lower_bound=1)
flags.DEFINE_string("out_dir", str(ROOT / "experiments" / "results"), "folder of the record, tflite_latency.json")


def write_files(model, images, folder):
    """Export what is to be compared; returns ``{name: (path, report)}``, the original first."""
    original = models.mnist_cnn(seed=0)
    smaller, _ = scc_tf.remove_dead_channels(model)
    compared = {
        "original float32": (original, {"storage": "float32"}),
        "ours float32": (smaller, {"storage": "float32"}),
        "ours float": (smaller, {"compute": "float"}),
        "ours dynamic": (smaller, {"compute": "dynamic"}),
        "ours int8": (smaller, {"compute": "int8", "representative_data": images}),
    }
    files = {}
    for name, (network, settings) in compared.items():
        path = folder / f"{name.replace(' ', '_')}.tflite"
        files[name] = (path, export_tflite(network, path, **settings))
    return files


def print_table(rows):
    """One line per file."""
    print(f"{'':18}{'bytes':>10}{'median, us':>12}{'quartiles':>16}{'ratio':>8}{'quartiles':>14}")
    for name, values in rows.items():
        taken = "-".join(f"{value:.1f}" for value in values["quartiles_us"])
        ratios = "-".join(f"{value:.3f}" for value in values["ratio_quartiles"])
        print(
            f"{name:18}{values['bytes']:>10,}{values['median_us']:>12.1f}{taken:>16}{values['ratio']:>8.3f}{ratios:>14}"
        )


def main(argv):
    """Export, measure, print, and write the record."""
    del argv
    values = flags.FLAGS
    data = datasets.load("mnist")
    model = scc_tf.load_packed(values.model)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(model, data.train.images[:CALIBRATION_IMAGES], Path(folder))
        paths = {name: path for name, (path, _) in files.items()}
        taken = measure_latency(paths, values.threads, values.rounds, values.calls, values.warm_up)
    rows = {
        name: {"bytes": report.bytes, **taken[name], "fallbacks": report.fallbacks}
        for name, (_, report) in files.items()
    }
    print_table(rows)
    record = {
        "command": f"python benchmarks/tflite_latency.py --threads={values.threads} --rounds={values.rounds} "
        f"--calls={values.calls} --warm_up={values.warm_up}",
        "model": Path(values.model).name,
        "threads": values.threads,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "processor": processor(),
        "versions": {
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "ai_edge_litert": ai_edge_litert.__version__,
        },
        "rows": rows,
    }
    with atomic_path(Path(values.out_dir) / "tflite_latency.json") as partial:
        partial.write_text(json.dumps(record, indent=1))
    print(f"Record: {Path(values.out_dir) / 'tflite_latency.json'}")


if __name__ == "__main__":
    app.run(main)
