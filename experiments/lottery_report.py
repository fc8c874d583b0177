"""What the lottery experiments do and write: means over the seeds, a table, a record and figures."""

import json
from pathlib import Path

from absl import flags
from flags_from_config import command_line, config_from_flags
from lab import figures, lottery
from seeds import mean_and_deviation
from two_models import compared

from scc_tf.atomic import atomic_path

FIELDS = (
    *("test_accuracy", "validation_accuracy", "epochs", "epochs_run", "epochs_in_all", "parameters", "sparsity"),
    *("operations", "nll", "brier", "ece_10", "ece_15", "ece_mass_10", "ece_mass_15", "mce", "uce", "confidence"),
    *("aurc", "temperature", "nll_scaled", "ece_15_scaled", "uce_scaled", "confidence_ood"),
)
DIGITS = 5  # that a record keeps of a number; hundreds of rows would fill half a megabyte otherwise
COLUMNS = (  # field, heading, factor, decimals
    ("test_accuracy", "accuracy %", 100, 2),
    ("epochs", "epochs", 1, 0),
    ("epochs_in_all", "in all", 1, 0),
    ("sparsity", "sparsity %", 100, 1),
    ("operations", "operations", 1, 0),
    ("ece_10", "ECE %", 100, 2),
    ("ece_15_scaled", "ECE scaled %", 100, 2),
    ("uce", "UCE %", 100, 2),
    ("auroc_probability", "AUROC %", 100, 2),
)


def summary(rows):
    """One dictionary per protocol and ratio: ``[mean, sample deviation over the seeds]`` of every measure."""
    groups = {}
    for row in rows:
        groups.setdefault((row["protocol"], row["ratio"]), []).append(_flat(row))
    table = []
    for (protocol, ratio), members in groups.items():
        names = [name for name in members[0] if name in FIELDS or name.startswith(("auroc_", "aupr_", "fpr95_"))]
        values = {name: mean_and_deviation([member[name] for member in members]) for name in names}
        named = {"protocol": protocol, "ratio": ratio, "seeds": len(members), "channels": members[0]["channels"]}
        worst = min(member["test_accuracy"] for member in members)
        capped = sum(member["capped"] for member in members)
        table.append({**named, **values, "lowest_test_accuracy": worst, "capped": capped})
    return table


def _flat(row):
    """A row with its OOD measures beside the others: ``auroc_energy`` and so on."""
    ood = {f"{name}_{kind}": value for kind, scores in row.get("ood", {}).items() for name, value in scores.items()}
    return {**{name: value for name, value in row.items() if name != "ood"}, **ood}


def format_summary(table):
    columns = [column for column in COLUMNS if column[0] in table[0]]
    lines = [f"{'protocol':<16}{'ratio':>6}" + "".join(f"{heading:>17}" for _, heading, _, _ in columns)]
    for row in table:
        cells = []
        for name, _, factor, decimals in columns:
            mean, deviation = row[name]
            spread = "" if deviation is None else f" ± {factor * deviation:.{decimals}f}"
            cells.append(f"{factor * mean:.{decimals}f}{spread}")
        lines.append(f"{row['protocol']:<16}{row['ratio']:>6g}" + "".join(f"{cell:>17}" for cell in cells))
    return "\n".join(lines)


def run(name, model, script, page):
    """Run the pipeline with the settings of the command line; print the table, write the record and its figures.

    Args:
        name: of record and figures; single weights have their own.
        model: name of the network.
        script: ``__name__`` of the experiment.
        page: ``(protocol, ratio)`` of the network of the first seed that is compared with the dense one, where it is
            among those that were asked for.

    Returns:
        The summary.
    """
    values = flags.FLAGS
    out_dir, work_dir = Path(values.out_dir), Path(values.work_dir)
    config = config_from_flags(lottery.Config, model=model)
    record = lottery.run(config, work_dir, values.verbose)
    name = name if config.structure == "structured" else f"{name}_unstructured"
    protocol, ratio = page
    if protocol in config.protocols.split(",") and ratio in config.pruned_ratios:
        networks = lottery.ticket(config, protocol, ratio, work_dir)
        names = ("dense", f"{protocol.replace('_', ' ')}, {ratio:.0%}")
        record["page"] = compared(*networks, names, out_dir / f"{name}_page.png")
    table = _write(name, record, command_line(script), out_dir)
    print(format_summary(table))
    print(f"Trained for {record['seconds'] / 60:.1f} min. Record and figures: {out_dir}")
    return table


def _write(name, record, command, out_dir):
    table = summary(record["rows"])
    record = {"command": command, "summary": table, **record}
    with atomic_path(out_dir / f"{name}.json") as partial:
        partial.write_text(json.dumps(_rounded(record), separators=(",", ":")))
    figures.lottery_curves(record, out_dir / f"{name}.png")
    figures.lottery_calibration(record, out_dir / f"{name}_calibration.png")
    if "confidence_ood" in table[0]:
        figures.lottery_ood(record, out_dir / f"{name}_ood.png")
    return table


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
