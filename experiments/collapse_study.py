"""How hard may one squeeze? Growing gamma, with and without the safety machinery.

python experiments/collapse_study.py

For every gamma and seed, the same float network is compressed twice: unsafe (the monitor only watches) and safe (safety
loss, restoration, contract). A run has collapsed if its safety accuracy ends more than the threshold below where it
started. Every finished run is cached in --work_dir; a study that was stopped goes on. The record and the figure of an
earlier study are replaced.
"""

import json
import math
from pathlib import Path

from absl import flags
from flags_from_config import command_line, config_from_flags, define_flags
from lab import datasets, figures, self_compression
from run_script import run

from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
define_flags(self_compression.Config, leave_out=("gamma", "mode", *self_compression.NETWORK_SETTINGS), epochs=1)
flags.DEFINE_list("gammas", ["0.03", "0.1", "0.3", "1"], "weights of the size term")
flags.DEFINE_integer("runs", 1, "number of seeds, from --seed on", lower_bound=1)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figure")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
flags.DEFINE_integer("verbose", 2, "0 silent, 1 progress bar, 2 one line per epoch")


@flags.validator("gammas", "Expected positive numbers (the figure's axis is logarithmic), separated by commas.")
def _are_positive(gammas):
    try:
        return bool(gammas) and all(0 < float(gamma) < math.inf for gamma in gammas)
    except ValueError:
        return False


def study_point(row, config, record):
    drop = 100 * (record["safety_accuracy_start"] - record["safety_accuracy"])
    return {
        "gamma": config.gamma,
        "row": row,
        "seed": config.seed,
        "drop_points": drop,
        "collapsed": drop > config.threshold_points + 1e-9,  # as KernelRestoration compares
        "safety_accuracy": record["safety_accuracy"],
        "test_accuracy": record["test_accuracy"],
        "stored_bytes": record["size"]["stored_bytes"],
        "restored": self_compression.restored_channels(record),
        "reverted_to_step": record["reverted_to_step"],
        "seconds": record["seconds"],
    }


def collapsed(points):
    """``{row: "collapsed of all"}``."""
    counts = {}
    for row in ("unsafe", "safe"):
        of_row = [point["collapsed"] for point in points if point["row"] == row]
        counts[row] = {"collapsed": sum(of_row), "runs": len(of_row)}
    return counts


def main():
    values = flags.FLAGS
    work_dir, out_dir = Path(values.work_dir), Path(values.out_dir)
    points = []
    for seed in range(values.seed, values.seed + values.runs):
        start = config_from_flags(self_compression.Config, seed=seed)
        data = datasets.load("mnist", start.data_dir or None)
        model, _ = self_compression.float_model(start, data, work_dir, values.verbose)
        safety_set = self_compression.safety_set_of(start, model, data, work_dir, values.verbose)
        for gamma in map(float, values.gammas):
            config = config_from_flags(self_compression.Config, seed=seed, gamma=gamma)
            for row in ("unsafe", "safe"):
                _, record = self_compression.compress(config, row, model, safety_set, data, work_dir, values.verbose)
                points.append(study_point(row, config, record))
                print(
                    "{row:7} gamma {gamma:<5g} seed {seed}: safety {safety_accuracy:.2%}, drop {drop_points:5.2f} "
                    "points, test {test_accuracy:.2%}, {stored_bytes:,} B, restored {restored}, "
                    "reverted to {reverted_to_step}".format(**points[-1])
                )
    counts = collapsed(points)
    for row, count in counts.items():
        print(f"{row}: {count['collapsed']} of {count['runs']} ended more than {values.threshold_points} points lower")
    record = {
        "command": command_line(__name__),
        "threshold_points": values.threshold_points,
        "epochs": values.epochs,
        "collapsed": counts,
        "points": points,
    }
    with atomic_path(out_dir / "collapse_study.json") as partial:
        partial.write_text(json.dumps(record, indent=1))
    figures.collapse_study(record, out_dir / "collapse_study.png")


if __name__ == "__main__":
    run(main)
