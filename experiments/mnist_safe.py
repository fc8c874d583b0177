"""The main job: compress the MNIST network without letting it get worse on its safety set.

python experiments/mnist_safe.py --gamma=0.01
python experiments/mnist_safe.py --gamma=0.01 --mode=compare --runs=3

Writes a JSON record and figures to --out_dir as mnist_<mode>, and the compressed model of the first seed to --model_dir
as mnist_safe (mnist_unsafe where the mode has no safe row). Those of an earlier run of the same mode, and the saved
model of any earlier run, are replaced. Finished stages are cached in --work_dir, so a rerun (or a run that was
stopped) goes on where it was.
"""

from pathlib import Path

import safe_report
from absl import flags
from flags_from_config import command_line, define_flags
from lab import self_compression
from model_card import save_with_card
from run_script import run

ROOT = Path(__file__).resolve().parent
define_flags(self_compression.Config, leave_out=self_compression.NETWORK_SETTINGS)
flags.DEFINE_integer(
    "runs", 1, "number of seeds, from --seed on; the table then shows mean and sample deviation", lower_bound=1
)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figures")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
flags.DEFINE_string("model_dir", str(ROOT.parent / "saved_models"), "folder of the compressed model and its card")
flags.DEFINE_integer("verbose", 1, "0 silent, 1 progress bar, 2 one line per epoch")


def main():
    values = flags.FLAGS
    out_dir, command = Path(values.out_dir), command_line(__name__)
    records, safety_set, compressed = safe_report.run_seeds(values)
    safe_report.write(f"mnist_{values.mode}", records, safety_set, command, out_dir)
    row = "safe" if "safe" in compressed else "unsafe"
    accuracy = records[0]["rows"][row]["test_accuracy"]
    save_with_card(Path(values.model_dir), f"mnist_{row}", compressed[row], command, test_accuracy=accuracy)
    print(f"Record and figures: {out_dir}; model: {values.model_dir}")


if __name__ == "__main__":
    run(main)
