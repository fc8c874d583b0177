"""The main job: compress the MNIST network without letting it get worse on its safety set.

python experiments/mnist_safe.py --gamma=0.01
python experiments/mnist_safe.py --gamma=0.01 --mode=compare --runs=3

Writes a JSON record and figures to --out_dir as mnist_<mode>, and the compressed model of the first seed to --model_dir
as mnist_safe (mnist_unsafe where the mode has no safe row). Those of an earlier run of the same mode, and the saved
model of any earlier run, are replaced. Finished stages are cached in --work_dir, so a rerun (or a run that was
stopped) goes on where it was.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from flags_from_config import command_line, config_from_flags, define_flags
from model_card import save_with_card
from seeds import mean_and_deviation

import scc_tf
from scc_tf import plots
from scc_tf.atomic import atomic_path
from scc_tf.pipelines import self_compression

ROOT = Path(__file__).resolve().parent
define_flags(self_compression.Config)
flags.DEFINE_integer(
    "runs", 1, "number of seeds, from --seed on; the table then shows mean and sample deviation", lower_bound=1
)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figures")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
flags.DEFINE_string("model_dir", str(ROOT.parent / "saved_models"), "folder of the compressed model and its card")
flags.DEFINE_integer("verbose", 1, "0 silent, 1 progress bar, 2 one line per epoch")

COLUMNS = (
    ("test acc. %", lambda row: 100 * row["test_accuracy"], "{:.2f}"),
    ("safety acc. %", lambda row: 100 * row["safety_accuracy"], "{:.2f}"),
    ("file B", lambda row: row["size"].get("stored_bytes", row["size"]["float32_bytes"]), "{:,.0f}"),
    ("integer B", lambda row: row["size"].get("integer_bytes", row["size"]["float32_bytes"]), "{:,.0f}"),
    ("entropy B", lambda row: row["size"].get("entropy_bytes", np.nan), "{:,.0f}"),
    ("nominal B", lambda row: row["size"].get("nominal_bits", np.nan) / 8, "{:,.0f}"),
    ("dead ch.", lambda row: row.get("dead_channels", 0), "{:.0f}"),
    ("restored", self_compression.restored_channels, "{:.0f}"),
    ("seconds", lambda row: row["seconds"], "{:.0f}"),
)


def summary(records):
    """``{row: {column: [mean, sample deviation]}}`` over the seeds; None where there is none, as JSON has no NaN."""
    return {
        name: {
            title: mean_and_deviation([value(record["rows"][name]) for record in records])
            for title, value, _ in COLUMNS
        }
        for name in records[0]["rows"]
    }


def format_table(table, seeds):
    lines = [f"{'':10}" + "".join(f"{title:>18}" for title, _, _ in COLUMNS)]
    for name, cells in table.items():
        texts = []
        for title, _, form in COLUMNS:
            mean, deviation = cells[title]
            spread = "" if deviation is None else " ± " + form.format(deviation)
            texts.append("-" if mean is None else form.format(mean) + spread)
        lines.append(f"{name:10}" + "".join(f"{text:>18}" for text in texts))
    lines.append(f"seeds {seeds}; integer and entropy bytes count exponents, widths, biases and batch statistics")
    return "\n".join(lines)


def write_figures(out_dir, name, records, safety_set):
    """The rows of all seeds in one figure; the others are of the first seed."""
    record = records[0]
    plots.compare_rows(records, out_dir / f"{name}.png")
    plots.safety_gallery(safety_set, out_dir / f"{name}_safety_set.png")
    for row in ("unsafe", "safe"):
        if row in record["rows"]:
            plots.size_and_accuracy(record["rows"][row], out_dir / f"{name}_{row}_size_accuracy.png")
            plots.bits_per_layer(record["rows"][row], out_dir / f"{name}_{row}_bits.png")
            plots.code_histograms(record["rows"][row], out_dir / f"{name}_{row}_codes.png")
            plots.network_and_step_time(record["rows"][row], out_dir / f"{name}_{row}_network.png")
            plots.restoration_events(record["rows"][row], out_dir / f"{name}_{row}_restorations.png")


def main(argv):
    del argv
    logging.set_verbosity(logging.INFO)
    values = flags.FLAGS
    out_dir, work_dir = Path(values.out_dir), Path(values.work_dir)
    command = command_line(__name__)
    records = []
    for seed in range(values.seed, values.seed + values.runs):
        config = config_from_flags(self_compression.Config, seed=seed)
        record, safety_set, compressed = self_compression.run(config, work_dir, values.verbose)
        records.append(record)
        if len(records) == 1:
            first = safety_set, compressed
            for row in compressed.values():
                print(scc_tf.size_report(row))
    seeds = [record["config"]["seed"] for record in records]
    table = summary(records)
    print(format_table(table, seeds))
    for record in records:
        if (step := record["rows"].get("safe", {}).get("reverted_to_step")) is not None:
            print(f"seed {record['config']['seed']}: safety had dropped; went back to step {step}")
    name = f"mnist_{values.mode}"
    with atomic_path(out_dir / f"{name}.json") as partial:
        partial.write_text(json.dumps({"command": command, "summary": table, "records": records}, indent=1))
    write_figures(out_dir, name, records, first[0])
    row = "safe" if "safe" in first[1] else "unsafe"
    accuracy = records[0]["rows"][row]["test_accuracy"]
    save_with_card(Path(values.model_dir), f"mnist_{row}", first[1][row], command, test_accuracy=accuracy)
    print(f"Record and figures: {out_dir}; model: {values.model_dir}")


if __name__ == "__main__":
    app.run(main)
