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
from run_script import run
from two_models import compared

from scc_tf.pipelines import lottery

ROOT = Path(__file__).resolve().parent
PAGE = ("winning_ticket", 0.6)  # drawn beside the dense network, seed 0
define_flags(lottery.Config, leave_out=("model",), runs=3, rounds=3)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figures")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")


def main():
    values = flags.FLAGS
    config, _ = lottery_report.run("lottery_cifar10", "cifar_cnn", __name__)
    protocol, ratio = PAGE
    if config.structure == "structured" and protocol in config.protocols and ratio in config.pruned_ratios:
        dense, ticket, data, ood = lottery.ticket(config, protocol, ratio, Path(values.work_dir))
        names = ("dense", f"{protocol}, {ratio:.0%} pruned")
        page = Path(values.out_dir) / "lottery_cifar10_page.png"
        compared(dense, ticket, data, ood, names, page)


if __name__ == "__main__":
    run(main)
