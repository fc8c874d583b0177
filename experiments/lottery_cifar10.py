"""Lottery tickets of a LeNet on CIFAR-10: filters and neurons, or single weights.

python experiments/lottery_cifar10.py --data_dir=datasets
python experiments/lottery_cifar10.py --data_dir=datasets --structure=unstructured

Three seeds; 20 to 80 % go, by four protocols and at random. The test images of CIFAR-100 are out of distribution.
Writes a JSON record, figures and a page that compares one ticket with the dense network to --out_dir; those of an
earlier run are replaced. Finished trainings are cached in --work_dir, and an interrupted one goes on from its last
epoch.
"""

from pathlib import Path

import lottery_report
from absl import flags
from flags_from_config import define_flags
from lab import lottery
from run_script import run

ROOT = Path(__file__).resolve().parent
PAGE = ("winning_ticket", 0.6)  # compared with the dense network, seed 0
define_flags(lottery.Config, leave_out=("model",), runs=3, rounds=3)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figures")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")


def main():
    lottery_report.run("lottery_cifar10", "cifar_cnn", __name__, PAGE)


if __name__ == "__main__":
    run(main)
