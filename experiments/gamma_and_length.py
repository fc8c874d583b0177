"""Does gamma mean the same for a short training and a long one? A dense network on scikit-learn's digits.

python experiments/gamma_and_length.py

`scc_tf.compress` with three prices of a bit, each for 230 to 3,450 steps; the seed is 0. The record is replaced.
"""

import json
from pathlib import Path

from absl import flags
from compress_networks import accuracy, digits
from flags_from_config import command_line
from run_script import run

import scc_tf
from scc_tf.atomic import atomic_path

flags.DEFINE_list("gammas", ["0.003", "0.01", "0.1"], "prices of a bit")
flags.DEFINE_list("epochs", ["10", "20", "60", "150"], "lengths of the training; an epoch has 23 steps")


def main():
    values, rows = flags.FLAGS, []
    model, train, test = digits(None, None)
    for gamma in map(float, values.gammas):
        for epochs in map(int, values.epochs):
            small = scc_tf.compress(model, (train.images, train.labels), gamma=gamma, epochs=epochs, verbose=0)
            row = {"gamma": gamma, "epochs": epochs, "stored_bytes": small.stored_bytes, "safe": small.safe}
            rows.append({**row, "test_accuracy": accuracy(small.model, test)})
            print(rows[-1], flush=True)
            with atomic_path(Path(values.out_dir) / "gamma_and_length.json") as partial:
                partial.write_text(json.dumps({"command": command_line(__name__), "rows": rows}, indent=1))


if __name__ == "__main__":
    run(main)
