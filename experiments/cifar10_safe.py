"""ResNet-20 through the main job: compress the CIFAR-10 network without letting it get worse on its safety set.

python experiments/cifar10_safe.py --data_dir=… --gamma=0.05
python experiments/cifar10_safe.py --data_dir=… --target_bytes=55800
python experiments/cifar10_safe.py --data_dir=… --mode=compare

The float network is the one that resnet20_train.py has saved. Writes a JSON record and figures to --out_dir as
<name>_<mode>, among them the safety set and, on one page, what compression did to the network, with CIFAR-100 out of
distribution; and the compressed model of the first seed to --model_dir as <name>_safe (<name>_unsafe where the mode
has no safe row), as .scc and as .tflite. Those of an earlier run are replaced. Finished stages are cached in
--work_dir, so a rerun (or a run that was stopped) goes on where it was.
"""

from pathlib import Path

import safe_report
from absl import flags
from flags_from_config import command_line, config_from_flags, define_flags
from lab import datasets, self_compression
from model_card import save_with_card
from run_script import run
from tflite_measures import measured
from two_models import compared

ROOT = Path(__file__).resolve().parent
NETWORK = {"data_set": "cifar10", "model": "resnet20"}
define_flags(
    self_compression.Config,
    leave_out=tuple(NETWORK),
    float_file=str(ROOT.parent / "saved_models" / "resnet20.keras"),
    float_epochs=20,
    epochs=12,
    batch_size=128,
    learning_rate=3e-4,
    shift=4,
    mirror=True,
    augmented_statistics=True,
    size_model="entropy",
    gamma=0.05,
    statistics_bits=6,
    check_every=176,
)
flags.DEFINE_integer(
    "runs", 1, "number of seeds, from --seed on; the table then shows mean and sample deviation", lower_bound=1
)
flags.DEFINE_string("name", "cifar10", "beginning of the names of the record, the figures and the compressed model")
flags.DEFINE_string("ood", "cifar100", "data set whose test images are out of distribution")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figures")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
flags.DEFINE_string(
    "model_dir", str(ROOT.parent / "saved_models"), "folder of the compressed model, its card and TFLite"
)
flags.DEFINE_integer("verbose", 2, "0 silent, 1 progress bar, 2 one line per epoch")


def main():
    values = flags.FLAGS
    out_dir, model_dir, command = Path(values.out_dir), Path(values.model_dir), command_line(__name__)
    ood = datasets.load_split(values.ood, "test", values.data_dir or None)  # first: a wrong name costs no hours
    records, safety_set, compressed = safe_report.run_seeds(values, **NETWORK)
    row = "safe" if "safe" in compressed else "unsafe"
    model, record, name = compressed[row], records[0]["rows"][row], f"{values.name}_{row}"
    save_with_card(model_dir, name, model, command, test_accuracy=record["test_accuracy"])

    config = config_from_flags(self_compression.Config, **NETWORK)
    data = datasets.load(config.data_set, config.data_dir or None)
    before, _ = self_compression.float_model(config, data, Path(values.work_dir), values.verbose)
    run = f"{values.name}_{values.mode}"
    logits = model.predict(data.test.images, batch_size=500, verbose=0)
    more = {
        "tflite": measured(model, model_dir / f"{name}.tflite", data.test, logits),
        "comparison": compared(before, model, data, ood, ("float", name), out_dir / f"{run}_comparison.png"),
    }
    safe_report.write(run, records, safety_set, command, out_dir, data.class_names, **more)
    print(f"Record and figures: {out_dir / run}*; model: {model_dir / name}.scc, .tflite")


if __name__ == "__main__":
    run(main)
