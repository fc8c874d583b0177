"""Name a size, get a file of that size: the MNIST network in 1 to 20 kB, with its safety contract.

python experiments/target_bytes.py

For every target, gamma is steered during training so that the file of the network approaches it from above, and a dead
zone makes it fit. Where size and safety cannot both be had, safety wins and the record says so. Finished runs are
cached in --work_dir; an experiment that was stopped goes on. The record and the figure of an earlier one are replaced,
also after every target.
"""

import json
from pathlib import Path

from absl import flags
from flags_from_config import command_line, config_from_flags, define_flags
from lab import datasets, figures, self_compression
from run_script import run

from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
define_flags(
    self_compression.Config,
    leave_out=("target_bytes", "mode", "epochs", *self_compression.NETWORK_SETTINGS),
    size_model="entropy",
    gamma=0.3,
    check_every=100,
    statistics_bits=5,
)
flags.DEFINE_list("targets", ["1000", "2500", "5000", "10000", "20000"], "sizes of the files, bytes")
flags.DEFINE_list("epochs", ["4"], "epochs for each target in turn; the last number is for all that follow, too")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figure")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
flags.DEFINE_integer("verbose", 2, "0 silent, 1 progress bar, 2 one line per epoch")


@flags.multi_flags_validator(["targets", "epochs"], "Expected whole numbers from 1, separated by commas.")
def _are_counts(lists):
    numbers = [number.strip() for values in lists.values() for number in values]
    return all(lists.values()) and all(number.isdecimal() and int(number) >= 1 for number in numbers)


def point_of(record):
    """What one run shows."""
    target = record["target"]
    return {
        **target,
        "validation_error": 100 * (1 - record["validation_accuracy"]),
        "test_error": 100 * (1 - record["test_accuracy"]),
        "safety_accuracy": record["safety_accuracy"],
        "safety_drop_points": record["safety_drop_points"],
        "safe": record["safe"],
        "restored": self_compression.restored_channels(record),
        "reverted_to_step": record["reverted_to_step"],
        "seconds": record["seconds"],
    }


def write(record, out_dir):
    with atomic_path(out_dir / "target_bytes.json") as partial:
        partial.write_text(json.dumps(record, indent=1))
    figures.target_sizes(record, out_dir / "target_bytes.png")


def main():
    values = flags.FLAGS
    work_dir, out_dir = Path(values.work_dir), Path(values.out_dir)
    start = config_from_flags(self_compression.Config)
    data = datasets.load("mnist", start.data_dir or None)
    model, float_record = self_compression.float_model(start, data, work_dir, values.verbose)
    safety_set = self_compression.safety_set_of(start, model, data, work_dir, values.verbose)
    record = {
        "command": command_line(__name__),
        "threshold_points": start.threshold_points,
        "float_test_error": 100 * (1 - float_record["test_accuracy"]),
        "points": [],
    }
    for number, target in enumerate(values.targets):
        epochs = int(values.epochs[min(number, len(values.epochs) - 1)])
        config = config_from_flags(self_compression.Config, target_bytes=int(target), epochs=epochs)
        _, row = self_compression.compress(config, "safe", model, safety_set, data, work_dir, values.verbose)
        record["points"].append({"epochs": epochs, **point_of(row)})
        write(record, out_dir)
        print(
            "{target_bytes:,} B wanted: {stored_bytes:,} B ({error_percent:+.2f} %), validation error "
            "{validation_error:.2f} %, test error {test_error:.2f} %, safety {safety_accuracy:.2%} (drop "
            "{safety_drop_points:.2f} points)\n    {outcome}".format(**record["points"][-1])
        )
    hit = sum(point["reached"] and point["error_percent"] >= -2 and point["safe"] for point in record["points"])
    print(f"{hit} of {len(record['points'])} targets hit within 2 %, with safety kept. Record and figure: {out_dir}")


if __name__ == "__main__":
    run(main)
