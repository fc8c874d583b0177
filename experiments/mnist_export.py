"""Out of Keras: the compressed MNIST network as TFLite files, and whether they still answer the same.

python experiments/mnist_export.py

Loads saved_models/mnist_safe.scc (the main job writes it), exports it for every way to compute, and runs each file with
LiteRT on all test images. Writes the record to --out_dir and mnist_safe.tflite (weights int8, computes in float: the
answers of Keras) to --model_dir. Calibration for the int8 activations uses training images.
"""

import json
import tempfile
from pathlib import Path

from absl import flags
from flags_from_config import command_line
from lab import datasets, models
from run_script import run
from tflite_measures import measured

import scc_tf
from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
flags.DEFINE_string("model", str(ROOT.parent / "saved_models" / "mnist_safe.scc"), "the compressed model")
flags.DEFINE_integer("calibration", 200, "training images to find the ranges of activations", lower_bound=1)
flags.DEFINE_string("data_dir", "", "folder of the data sets; MNIST is embedded")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record")
flags.DEFINE_string("model_dir", str(ROOT.parent / "saved_models"), "folder of the TFLite file")


def exports(images):
    """``{name: arguments of export_tflite}``."""
    return {
        "float32": {"storage": "float32"},
        "int8 weights": {},
        "int8 weights, dynamic": {"compute": "dynamic"},
        "int8": {"compute": "int8", "representative_data": images},
        "int4 weights": {"storage": "int4"},
    }


def measure(model, test, calibration, folder):
    """``{name: what was measured of the file}``."""
    logits = model.predict(test.images, batch_size=500, verbose=0)
    rows = {}
    for name, arguments in exports(calibration).items():
        rows[name] = measured(model, folder / f"{name}.tflite", test, logits, **arguments)
    return rows


def main():
    values = flags.FLAGS
    test = datasets.load_split("mnist", "test", values.data_dir or None)
    train = datasets.load("mnist", values.data_dir or None).train
    model = scc_tf.load_packed(values.model)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(model, test, train.images[: values.calibration], Path(folder))
    original = models.mnist_cnn()
    with tempfile.TemporaryDirectory() as folder:
        whole = scc_tf.export_tflite(original, Path(folder) / "original.tflite", storage="float32").bytes
    answers = model.predict(test.images, batch_size=500, verbose=0).argmax(1)
    record = {
        "command": command_line(__name__),
        "keras_test_accuracy": float((answers == test.labels).mean()),
        "scc_bytes": Path(values.model).stat().st_size,
        "original_float32_tflite_bytes": whole,
        "files": rows,
    }
    scc_tf.export_tflite(model, Path(values.model_dir) / "mnist_safe.tflite")
    with atomic_path(Path(values.out_dir) / "mnist_export.json") as partial:
        partial.write_text(json.dumps(record, indent=1))
    print(f"Keras: test {record['keras_test_accuracy']:.2%}; .scc: {record['scc_bytes']:,} B; original: {whole:,} B")


if __name__ == "__main__":
    run(main)
