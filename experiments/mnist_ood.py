"""What compression did to the MNIST networks of this repository, Fashion-MNIST as the other world.

python experiments/mnist_ood.py

Every packed network in --model_dir is compared with the float network of the same architecture: accuracy, calibration,
out-of-distribution scores, size and work. Float networks come from --work_dir, or are trained once if they are not
there. Prints the reports; writes mnist_ood.json, the reports without their curves, and a page per network,
mnist_ood_<name>.png, to --out_dir.
"""

import functools
import json
from pathlib import Path

from absl import flags
from flags_from_config import command_line
from lab import datasets, deep_compression, self_compression
from lab.deep_compression.stages import Trainer, float_network
from run_script import run
from two_models import compared

import scc_tf
from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
flags.DEFINE_list("names", [], "packed networks; all of MNIST where the list is empty")
flags.DEFINE_string("data_dir", "", "folder of Fashion-MNIST; it is downloaded where it is not there")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the pages")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached float networks")
flags.DEFINE_string("model_dir", str(ROOT.parent / "saved_models"), "folder of the packed networks")

NETWORKS = {  # packed network -> architecture of its float network
    "mnist_safe": "mnist_cnn",
    "deep_mnist_cnn": "mnist_cnn",
    "record_mnist_cnn": "mnist_cnn",
    "record_smallest": "mnist_cnn",
    "deep_lenet_5": "lenet_5",
    "record_lenet_5": "lenet_5",
    "deep_lenet_300_100": "lenet_300_100",
    "record_lenet_300_100": "lenet_300_100",
}


def float_networks(data, work_dir):
    """A function of an architecture that returns its trained float network; each is made once."""

    @functools.cache
    def float_model(architecture):
        if architecture == "mnist_cnn":
            model, _ = self_compression.float_model(self_compression.Config(), data, work_dir)
        else:
            model, _ = float_network(Trainer(deep_compression.Config(model=architecture), data, work_dir))
        return model

    return float_model


def main():
    values = flags.FLAGS
    out_dir, model_dir = Path(values.out_dir), Path(values.model_dir)
    data = datasets.load("mnist")
    ood = datasets.load_split("fashion_mnist", "test", values.data_dir or None)
    float_model = float_networks(data, Path(values.work_dir))
    reports = {}
    for name in values.names or [name for name in NETWORKS if (model_dir / f"{name}.scc").exists()]:
        before, after = float_model(NETWORKS[name]), scc_tf.load_packed(model_dir / f"{name}.scc")
        reports[name] = compared(before, after, data, ood, ("float", name), out_dir / f"mnist_ood_{name}.png")
    with atomic_path(out_dir / "mnist_ood.json") as partial:
        partial.write_text(json.dumps({"command": command_line(__name__), "reports": reports}, indent=1))
    print(f"Record and pages: {out_dir}")


if __name__ == "__main__":
    run(main)
