"""What the safe experiments have in common: they run the main job per seed, and write a table, a record and figures."""

import json
from pathlib import Path

import numpy as np
from flags_from_config import config_from_flags
from lab import figures, self_compression
from seeds import mean_and_deviation

import scc_tf
from scc_tf import plots
from scc_tf.atomic import atomic_path

COLUMNS = (
    ("test acc. %", lambda row: 100 * row["test_accuracy"], "{:.2f}"),
    ("safety acc. %", lambda row: 100 * row["safety_accuracy"], "{:.2f}"),
    ("file B", lambda row: row["size"].get("stored_bytes", row["size"]["float32_bytes"]), "{:,.0f}"),
    ("integer B", lambda row: row["size"].get("integer_bytes", row["size"]["float32_bytes"]), "{:,.0f}"),
    ("entropy B", lambda row: row["size"].get("entropy_bytes", np.nan), "{:,.0f}"),
    ("nominal B", lambda row: row["size"].get("nominal_bits", np.nan) / 8, "{:,.0f}"),
    ("dead ch.", lambda row: row.get("dead_channels", 0), "{:.0f}"),
    ("restored", self_compression.restored_channels, "{:.0f}"),
    ("seconds", lambda row: row.get("seconds", np.nan), "{:.0f}"),
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


def write_figures(out_dir, name, records, safety_set, class_names=None):
    """The rows of all seeds in one figure; the others are of the first seed."""
    record = records[0]
    figures.compare_rows(records, out_dir / f"{name}.png")
    plots.safety_gallery(safety_set, out_dir / f"{name}_safety_set.png", class_names=class_names)
    for row in ("unsafe", "safe"):
        if row in record["rows"]:
            figures.compression_course(record["rows"][row], out_dir / f"{name}_{row}")


def run_seeds(values, **settings):
    """Run every seed that the flags ask for; returns the records, and safety set and compressed models of the first.

    Args:
        values: the flags.
        **settings: of the main job that have no flag.
    """
    records, first = [], None
    for seed in range(values.seed, values.seed + values.runs):
        config = config_from_flags(self_compression.Config, seed=seed, **settings)
        record, *of_seed = self_compression.run(config, Path(values.work_dir), values.verbose)
        records.append(record)
        if first is None:
            first = of_seed
            for model in first[1].values():
                print(scc_tf.size_report(model))
    return records, *first


def write(name, records, safety_set, command, out_dir, class_names=None, **more):
    """Print the table; write ``<name>.json``, with ``more`` in it, and the figures."""
    seeds = [record["config"]["seed"] for record in records]
    table = summary(records)
    print(format_table(table, seeds))
    for record in records:
        seed, safe = record["config"]["seed"], record["rows"].get("safe")
        if not safe:
            continue
        if safe["reverted_to_step"] is not None:
            print(f"seed {seed}: safety had dropped; went back to step {safe['reverted_to_step']}")
        kept = "kept" if safe["safe"] else "broken by rounding"
        print(f"seed {seed}: contract {kept}, {safe['safety_drop_points']:.1f} points below the reference")
    with atomic_path(out_dir / f"{name}.json") as partial:
        partial.write_text(json.dumps({"command": command, "summary": table, **more, "records": records}, indent=1))
    write_figures(out_dir, name, records, safety_set, class_names)
