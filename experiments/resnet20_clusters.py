"""Filter clustering of ResNet-20 on CIFAR-10, beside L1 filter pruning and random filters.

python experiments/resnet20_clusters.py --data_dir=datasets
python experiments/resnet20_clusters.py --data_dir=datasets --tuned_methods=clusters
python experiments/resnet20_clusters.py --data_dir=datasets --tuned=8/16/32 --tuned_budgets= --distillation=0.5

Filters that are left are given per stage: the founding document's three settings (2/2/2, 8/16/32, 15/31/63), its
sweep 2t/4t/8t, and its grid of 27 points with the correlation tables; or as a budget of parameters or
multiply-accumulates, spread over the layers by sensitivity. These networks are not fine-tuned; those of --tuned, by
each of --tuned_methods, and of --tuned_budgets are. Fine-tuning learns from the labels alone, unless --distillation
asks for the original network's answers, too. Time in TFLite is that of files as they are and, with --lanes, of files
whose convolutions fill the processor's vectors.

Ten networks are fine-tuned by default, each 10 to 30 minutes of two cores, so all takes about four hours; with
--tuned_methods=clusters four are, in about an hour and a half. Writes resnet20_clusters.json and figures to --out_dir,
and 8/16/32 after fine-tuning, if it was asked for, by the clustering that is best on validation, to --model_dir as
resnet20_half.keras with its card; those of an earlier run are replaced. Finished rows are cached in --work_dir, and an
interrupted fine-tuning goes on from its last epoch.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import keras
from absl import flags
from flags_from_config import command_line, config_from_flags, define_flags
from lab import figures, filter_clustering
from lab.filter_clustering import CLUSTERINGS, FOUNDING, GRID, METHODS, Point, Study, check_points
from lab.processor import processor
from lab.stage import fingerprint
from model_card import save_keras_with_card
from run_script import run

from scc_tf.atomic import atomic_path
from scc_tf.clustering import ClusterBudget, cluster_filters
from scc_tf.export import export_tflite, measure_latency

ROOT = Path(__file__).resolve().parent
define_flags(filter_clustering.Config, leave_out=("data",))
flags.DEFINE_string("network", str(ROOT.parent / "saved_models" / "resnet20.keras"), "the original, a .keras file")
flags.DEFINE_list("methods", list(METHODS), "methods of the settings and the sweep, of " + ", ".join(METHODS))
flags.DEFINE_list("grid_methods", ["clusters"], "methods of the grid; clusters is the one in the tables")
flags.DEFINE_integer("random_draws", 3, "random filters, drawn so many times at every setting", lower_bound=1)
flags.DEFINE_list(
    "budgets",
    ["135754", "20000000mac"],
    "trainable parameters, or multiply-accumulates, to spread over the layers by sensitivity",
)
flags.DEFINE_list("tuned", ["8/16/32", "15/31/63", "2/2/2"], "settings to fine-tune")
flags.DEFINE_list("tuned_methods", ["clusters", "l1", "random"], "methods of these settings")
flags.DEFINE_list("tuned_budgets", ["135754"], "budgets to fine-tune; 135754 are the parameters of 8/16/32")
flags.DEFINE_integer("epochs", 20, "epochs of fine-tuning", lower_bound=1)
flags.DEFINE_list("timed", ["2/2/2", "4/8/16", "8/16/32", "12/24/48", "15/31/63"], "settings to time; budgets are, too")
flags.DEFINE_integer(
    "lanes",
    0,
    "also time files whose convolutions fill vectors of so many float32 numbers, 16 with AVX-512; 0: do not",
    lower_bound=0,
)
flags.DEFINE_integer("rounds", 200, "measurements of the latency of each network", lower_bound=1)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figures")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached rows")
flags.DEFINE_string("model_dir", str(ROOT.parent / "saved_models"), "folder of 8/16/32 after fine-tuning")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")

ORIGINAL, HALF = "original", "8/16/32"
SETTINGS = ((2, 2, 2), (8, 16, 32), (15, 31, 63))
SWEEP = tuple((2 * t, 4 * t, 8 * t) for t in range(1, 7))
CURVE = tuple(dict.fromkeys("/".join(map(str, clusters)) for clusters in (*SETTINGS, *SWEEP)))


def parsed(label):
    """Filters per stage, from "8/16/32"."""
    if not re.fullmatch(r"\d+(/\d+)*", label):
        raise ValueError(f"Expected filters per stage, as in 8/16/32. Received: {label!r}")
    return tuple(int(part) for part in label.split("/"))


def budget(label):
    """From "135754" parameters or "20000000mac" multiply-accumulates."""
    if not (found := re.fullmatch(r"(\d+)(mac)?", label)):
        raise ValueError(f"Expected a budget, as in 135754 or 20000000mac. Received: {label!r}")
    return ClusterBudget(**{"multiply_accumulates" if found[2] else "parameters": int(found[1])})


def points(values):
    """All that is asked for, each once; what is not fine-tuned comes first."""
    asked = [
        Point(method, clusters, draw=draw)
        for clusters in (*SETTINGS, *SWEEP)
        for method in values.methods
        for draw in range(values.random_draws if method == "random" else 1)
    ]
    asked += [Point(method, clusters) for method in values.grid_methods for clusters in GRID]
    asked += [Point("clusters", budget(parameters)) for parameters in values.budgets]
    asked += [Point(method, parsed(label), values.epochs) for label in values.tuned for method in values.tuned_methods]
    asked += [Point("clusters", budget(parameters), values.epochs) for parameters in values.tuned_budgets]
    return list(dict.fromkeys(asked))


def asked_for(values, network):
    """The points, and the settings to time; what the network cannot become ends the script before hours have passed."""
    try:
        asked, timed = points(values), {label: parsed(label) for label in values.timed}
        check_points(network, [*asked, *(Point("clusters", clusters) for clusters in timed.values())])
    except ValueError as error:
        raise SystemExit(f"{sys.argv[0]}: {error}") from error
    return asked, timed


def tables(rows):
    """The correlations over the grid; None where a point of it is missing."""
    found = {row["label"]: row for row in rows if row["method"] == "clusters" and not row["epochs"]}
    chosen = [found.get("/".join(map(str, clusters))) for clusters in GRID]
    if None in chosen:
        return None
    accuracies, parameters = ([row[name] for row in chosen] for name in ("test_accuracy", "parameters"))
    return filter_clustering.correlations(GRID, accuracies, parameters)


def latencies(network, settings, rounds, lanes):
    """What networks take as TFLite files of float32 weights, by their label; the original comes first.

    Args:
        network: the original.
        settings: ``{label: filters per stage or layer}``.
        rounds: measurements of each.
        lanes: of `scc_tf.export_tflite`; if not 0, "label, 16 lanes" is there as well.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for label, clusters in {ORIGINAL: None, **settings}.items():
            # which filters are merged does not matter for the time: no images, so this is quick
            smaller = network if clusters is None else cluster_filters(network, clusters)[0]
            for filled in (None, lanes) if lanes else (None,):
                name = f"{label}, {filled} lanes" if filled else label
                paths[name] = Path(folder) / f"{len(paths)}.tflite"
                export_tflite(smaller, paths[name], storage="float32", lanes=filled)
        return measure_latency(paths, rounds=rounds)


def reports(record):
    """Precision, recall and F1 of the original, and of 8/16/32 before and after fine-tuning."""
    chosen = {ORIGINAL: record["baseline"]["classes"]}
    for row in record["rows"]:
        if row["method"] == "clusters" and row["label"] == HALF:
            tuned = f", {row['epochs']} epochs of fine-tuning" if row["epochs"] else ", not fine-tuned"
            chosen[HALF + tuned] = row["classes"]
    return chosen


def format_rows(record):
    """One line per network: accuracy and its distance from the original, parameters, work, latency."""
    baseline, latency = record["baseline"], record["latency"]
    lines = [
        f"{'method':<10}{'filters':<30}{'epochs':>7}{'val. %':>9}{'test %':>9}{'points':>8}"
        f"{'parameters':>12}{'MMAC':>8}{'time':>7}"
    ]
    for row in [{"method": ORIGINAL, "label": ORIGINAL, "epochs": 0, **baseline}, *record["rows"]]:
        lost = 100 * (row["test_accuracy"] - baseline["test_accuracy"])
        time = f"{latency[row['label']]['ratio']:.2f}" if row["label"] in latency else ""
        lines.append(
            f"{row['method']:<10}{row['label']:<30}{row['epochs']:>7}{100 * row['validation_accuracy']:>9.2f}"
            f"{100 * row['test_accuracy']:>9.2f}{lost:>+8.2f}"
            f"{row['parameters']:>12,}{row['multiply_accumulates'] / 1e6:>8.2f}{time:>7}"
        )
    return "\n".join(lines)


def format_filled(latency, lanes):
    """One line per network: time as a share of the original's, as it is and with vectors filled."""
    lines = [f"{'time':<40}{'as it is':>10}{f'{lanes} lanes':>10}"]
    for label in latency:
        if filled := latency.get(f"{label}, {lanes} lanes"):
            lines.append(f"{label:<40}{latency[label]['ratio']:>10.3f}{filled['ratio']:>10.3f}")
    return "\n".join(lines)


def format_tables(found):
    """The columns of accuracy and parameters, the founding document's values in brackets."""
    lines = [f"{'over 27 points':<16}{'':<12}{'with accuracy':>26}{'with parameters':>18}"]
    accuracy, parameters = (found["columns"].index(name) for name in ("accuracy", "parameters"))
    for kind, theirs in FOUNDING.items():
        for place, name in enumerate(found["columns"]):
            if name != "accuracy":
                ours, other = found[kind][place][accuracy], found[kind][place][parameters]
                said = "-" if ours is None else f"{ours:.6f}"
                lines.append(f"{kind:<16}{name:<12}{said + f' ({theirs[name]:.6f})':>26}{other:>18.6f}")
    return "\n".join(lines)


def save_half(values, network, config, rows):
    """Write 8/16/32 after fine-tuning, with its card, if it was asked for: the clustering that is best on validation.

    Args:
        values: of the flags.
        network: the original.
        config: of the study.
        rows: ``{point: row}``.
    """
    tuned = {
        point: row
        for point, row in rows.items()
        if point.method in CLUSTERINGS and point.clusters == parsed(HALF) and point.epochs
    }
    if tuned:
        point = max(tuned, key=lambda point: tuned[point]["validation_accuracy"])
        half = Study(network, config, Path(values.work_dir), values.verbose).made(point)
        names = ("method", "parameters", "validation_accuracy", "test_accuracy")
        measured = {name: tuned[point][name] for name in names}
        save_keras_with_card(Path(values.model_dir), "resnet20_half", half, command_line(__name__), **measured)


def main():
    values = flags.FLAGS
    config, out_dir = config_from_flags(filter_clustering.Config), Path(values.out_dir)
    network = keras.saving.load_model(values.network, compile=False)
    asked, timed = asked_for(values, network)
    record = filter_clustering.run(network, asked, config, Path(values.work_dir), values.verbose)
    timed |= {row["label"]: row["clusters"] for row in record["rows"] if row["method"] == "budget"}
    found = tables(record["rows"])
    record = {
        "command": command_line(__name__),
        "network": {"file": Path(values.network).name, "weights": fingerprint(network)},
        "latency": latencies(network, timed, values.rounds, values.lanes),
        "processor": {"cores": os.cpu_count(), **processor()},
        "curve": CURVE,
        "correlations": found,
        **record,
    }
    print(format_rows(record))
    if values.lanes:
        print(format_filled(record["latency"], values.lanes))
    save_half(values, network, config, dict(zip(asked, record["rows"], strict=True)))
    figures.class_reports(reports(record), out_dir / "resnet20_clusters_classes.png")
    figures.cluster_tradeoff(record, out_dir / "resnet20_clusters.png")
    if found:
        print(format_tables(found))
        figures.cluster_correlations(found, out_dir / "resnet20_clusters_correlations.png")
    for row in record["rows"]:
        if row["label"] not in CURVE:
            del row["classes"]  # thirty numbers, for every point of the grid
    with atomic_path(out_dir / "resnet20_clusters.json") as partial:
        partial.write_text(json.dumps(record, indent=1))
    print(f"Record and figures: {out_dir}")


if __name__ == "__main__":
    run(main)
