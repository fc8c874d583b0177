"""A float ResNet-20 on CIFAR-10: the network that the compressed ones start from.

python experiments/resnet20_train.py --data_dir=…
python experiments/resnet20_train.py --data_dir=… --epochs=2 --share=0.1 --name=resnet20_trial

Writes a JSON record and a figure of the training to --out_dir as <name>_train, and the network with its card to
--model_dir as <name>.keras; those of an earlier run are replaced. The training is cached in --work_dir, so a run that
was stopped goes on where it was; TensorBoard reads its logs there.
"""

import json
from pathlib import Path

from absl import flags
from flags_from_config import command_line, config_from_flags, define_flags
from lab import figures, image_training
from model_card import save_keras_with_card
from run_script import run

from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
define_flags(image_training.Config)
flags.DEFINE_string("name", "resnet20", "of the network, its record and its figure")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figure")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached training")
flags.DEFINE_string("model_dir", str(ROOT.parent / "saved_models"), "folder of the network and its card")
flags.DEFINE_integer("verbose", 2, "0 silent, 1 progress bar, 2 one line per epoch")


def format_classes(record):
    """Precision, recall and F1 of every class on test, per cent."""
    columns = ("precision", "recall", "f1-score")
    lines = [f"{'':12}" + "".join(f"{column:>12}" for column in columns)]
    for name, row in record["classes"].items():
        lines.append(f"{name:12}" + "".join(f"{100 * row[column]:12.1f}" for column in columns))
    return "\n".join(lines)


def main():
    values = flags.FLAGS
    out_dir, command = Path(values.out_dir), command_line(__name__)
    config = config_from_flags(image_training.Config)
    record, model = image_training.run(config, Path(values.work_dir), values.verbose)
    print(format_classes(record))
    name = f"{values.name}_train"
    with atomic_path(out_dir / f"{name}.json") as partial:
        partial.write_text(json.dumps({"command": command, **record}, indent=1))
    figures.training_curves(record, out_dir / f"{name}.png")
    measured = {name: record[name] for name in ("parameters", "validation_accuracy", "test_accuracy")}
    save_keras_with_card(Path(values.model_dir), values.name, model, command, **measured)
    print(
        f"{config.epochs} epochs in {record['seconds']:.0f} s: {record['validation_accuracy']:.2%} on validation "
        f"({record['chosen']}), {record['test_accuracy']:.2%} on test"
    )
    print(f"Record and figure: {out_dir / name}.json, .png; network: {values.model_dir}")


if __name__ == "__main__":
    run(main)
