"""Lottery tickets of a network with 30 neurons on the two moons.

python experiments/lottery_moons.py

Ten seeds; 10 to 90 % of the neurons go, by four protocols and at random. Iterative pruning rewinds to epoch 100 of the
dense training, which did better on validation than a rewind to the initial weights. Writes a JSON record and figures to
--out_dir; those of an earlier run are replaced. Finished trainings are cached in --work_dir, so that a run that was
stopped goes on.
"""

from pathlib import Path

import lottery_report
import tensorflow as tf
from absl import flags
from flags_from_config import define_flags
from lab import lottery
from run_script import run

ROOT = Path(__file__).resolve().parent
PAGE = ("iterative", 0.8)  # compared with the dense network, seed 0
define_flags(lottery.Config, leave_out=("model", "data_dir", "ood", "shift"), runs=10, rewind_steps=100)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figures")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")


def main():
    table = lottery_report.run("lottery_moons", "moons_mlp", __name__, PAGE)
    print(f"Lowest accuracy of a dense network: {100 * table[0]['lowest_test_accuracy']:.2f} %")


if __name__ == "__main__":
    # operations this small take longer to hand to another thread than to do
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    run(main)
