"""Decode a packed file and score it on the test images: what a stranger with the file alone would measure.

python experiments/score_packed.py saved_models/record_lenet_5.scc

Prints one line of JSON: the bytes of the file and its test error in per cent.
"""

import json
from pathlib import Path

import keras
import numpy as np
from absl import app, flags
from lab import datasets

import scc_tf

flags.DEFINE_string("data_set", "mnist", "data set whose test images are scored")
flags.DEFINE_string("data_dir", "", "folder of the data sets; MNIST is embedded")


def main(argv):
    if len(argv) != 2:
        raise app.UsageError(f"Expected one packed file. Received: {argv[1:]}")
    path = Path(argv[1])
    model = scc_tf.load_packed(path)
    split = datasets.load_split(flags.FLAGS.data_set, "test", flags.FLAGS.data_dir or None)
    logits = keras.ops.convert_to_numpy(model.predict(split.images, batch_size=500, verbose=0))
    error = 100 * float(np.mean(logits.argmax(axis=1) != split.labels))
    print(json.dumps({"stored_bytes": path.stat().st_size, "test_error": error}))


if __name__ == "__main__":
    app.run(main)
