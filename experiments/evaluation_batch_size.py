"""Does accuracy depend on the evaluation batch? It did in the founding code (99.42 % at 10,000, 88.27 % at 1).

python experiments/evaluation_batch_size.py

Loads the compressed network of the main job from saved_models/ and scores the test images in batches of 1, 8 and all.
"""

import json
from pathlib import Path

from absl import flags
from flags_from_config import command_line
from lab import datasets
from run_script import run

from scc_tf import load_packed
from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
flags.DEFINE_string("model", str(ROOT.parent / "saved_models" / "mnist_safe.scc"), "the compressed model")
flags.DEFINE_list("batch_sizes", ["1", "8", "10000"], "evaluation batch sizes")
flags.DEFINE_string("data_dir", "", "folder of the data sets; MNIST is embedded")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record")


def main():
    values = flags.FLAGS
    test = datasets.load_split("mnist", "test", values.data_dir or None)
    model = load_packed(values.model)
    accuracy = {}
    for size in map(int, values.batch_sizes):
        answers = model.predict(test.images, batch_size=size, verbose=0).argmax(1)
        accuracy[str(size)] = float((answers == test.labels).mean())
        print(f"batch size {size:>6}: test accuracy {accuracy[str(size)]:.2%}")
    record = {"command": command_line(__name__), "test_accuracy": accuracy}
    with atomic_path(Path(values.out_dir) / "evaluation_batch_size.json") as partial:
        partial.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    run(main)
