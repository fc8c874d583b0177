"""What gzip makes of the networks and the files: the bytes that somebody would send without this library.

python experiments/gzip_sizes.py

Trains the networks of the records for an epoch, since weights that were never trained are no measure, and takes the
files of saved_models as they are. All of it is compressed by gzip -9.
"""

import gzip
import json
from pathlib import Path

import keras
import numpy as np
from absl import app, flags
from lab import datasets, models

from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
SAVED = ROOT.parent / "saved_models"

flags.DEFINE_string("out", str(ROOT / "results" / "gzip_sizes.json"), "file of the record")


def sizes(content):
    return {"bytes": len(content), "gzip_bytes": len(gzip.compress(content, 9, mtime=0))}


def weights(model):
    return np.concatenate([np.asarray(w, np.float32).ravel() for w in model.get_weights()]).tobytes()


def main(_):
    data = datasets.load("mnist")
    record = {"command": "python experiments/gzip_sizes.py", "float32": {}, "files": {}}
    for name in ("lenet_300_100", "lenet_5", "mnist_cnn"):
        keras.utils.set_random_seed(0)
        model = getattr(models, name)(seed=0)
        model.compile(keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(*data.train, batch_size=128, epochs=1, verbose=0)
        record["float32"][name] = sizes(weights(model))
    record["float32"]["resnet20"] = sizes(weights(keras.models.load_model(SAVED / "resnet20.keras", compile=False)))
    for path in sorted([*SAVED.glob("*.scc"), *SAVED.glob("*.tflite")]):
        record["files"][path.name] = sizes(path.read_bytes())
    print(json.dumps(record, indent=1))
    with atomic_path(flags.FLAGS.out) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
