"""Filter clustering of ResNet-20 on CIFAR-10, beside L1 filter pruning and random filters.

python experiments/resnet20_clusters.py --data_dir=datasets
python experiments/resnet20_clusters.py --data_dir=datasets --tuned=8/16/32,4/8/16 --tuned_methods=clusters,l1

Filters that are left are given per stage: the founding document's three settings (2/2/2, 8/16/32, 15/31/63), its
sweep 2t/4t/8t, and its grid of 27 points with the correlation tables. These networks are not fine-tuned, those of
--tuned are. Writes resnet20_clusters.json and figures to --out_dir; those of an earlier run are replaced. Finished
rows are cached in --work_dir, and an interrupted fine-tuning goes on from its last epoch.
"""

import json
import os
import tempfile
from pathlib import Path

import keras
from absl import flags
from flags_from_config import command_line, config_from_flags, define_flags
from run_script import run

from scc_tf import plots
from scc_tf.atomic import atomic_path
from scc_tf.clustering import ClusterBudget, cluster_filters
from scc_tf.export import export_tflite, measure_latency
from scc_tf.export.tflite.latency import processor
from scc_tf.pipelines import filter_clustering
from scc_tf.pipelines.filter_clustering import FOUNDING, GRID, METHODS, Point

ROOT = Path(__file__).resolve().parent
define_flags(filter_clustering.Config, leave_out=("data",))
flags.DEFINE_string("network", str(ROOT.parent / "saved_models" / "resnet20.keras"), "the original, a .keras file")
flags.DEFINE_list("methods", list(METHODS), "methods of the settings and the sweep, of " + ", ".join(METHODS))
flags.DEFINE_list("grid_methods", ["clusters"], "methods of the grid; clusters is the one in the tables")
flags.DEFINE_list("budgets", ["135754"], "trainable parameters to spread over the layers by sensitivity")
flags.DEFINE_list("tuned", ["8/16/32"], "settings to fine-tune")
flags.DEFINE_list("tuned_methods", ["clusters", "l1", "random"], "methods to fine-tune")
flags.DEFINE_integer("epochs", 20, "epochs of fine-tuning", lower_bound=1)
flags.DEFINE_list("timed", ["2/2/2", "4/8/16", "8/16/32", "12/24/48", "15/31/63"], "settings whose latency is measured")
flags.DEFINE_integer("rounds", 200, "measurements of the latency of each network", lower_bound=1)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figures")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached rows")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")

ORIGINAL, HALF = "original", "8/16/32"
SETTINGS = ((2, 2, 2), (8, 16, 32), (15, 31, 63))
SWEEP = tuple((2 * t, 4 * t, 8 * t) for t in range(1, 7))
CURVE = tuple(dict.fromkeys("/".join(map(str, clusters)) for clusters in (*SETTINGS, *SWEEP)))


def parsed(label):
    """Filters per stage, from "8/16/32"."""
    return tuple(int(part) for part in label.split("/"))


def points(values):
    """All that is asked for, each once; what is not fine-tuned comes first."""
    asked = [Point(method, clusters) for clusters in (*SETTINGS, *SWEEP) for method in values.methods]
    asked += [Point(method, clusters) for method in values.grid_methods for clusters in GRID]
    asked += [Point("clusters", ClusterBudget(parameters=int(budget))) for budget in values.budgets]
    asked += [Point(method, parsed(label), values.epochs) for label in values.tuned for method in values.tuned_methods]
    return list(dict.fromkeys(asked))


def tables(rows):
    """The correlations over the grid; None where a point of it is missing."""
    found = {row["label"]: row for row in rows if row["method"] == "clusters" and not row["epochs"]}
    chosen = [found.get("/".join(map(str, clusters))) for clusters in GRID]
    if None in chosen:
        return None
    accuracies, parameters = ([row[name] for row in chosen] for name in ("test_accuracy", "parameters"))
    return filter_clustering.correlations(GRID, accuracies, parameters)


def latencies(network, labels, rounds):
    """What the settings take as TFLite files of float32 weights; the original comes first."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for label in (ORIGINAL, *labels):
            # which filters are merged does not matter for the time: no images, so this is quick
            smaller = network if label == ORIGINAL else cluster_filters(network, parsed(label))[0]
            paths[label] = Path(folder) / f"{label.replace('/', '-')}.tflite"
            export_tflite(smaller, paths[label], storage="float32")
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
        f"{'method':<10}{'filters':<20}{'epochs':>7}{'test %':>9}{'points':>8}{'parameters':>12}{'MMAC':>8}{'time':>7}"
    ]
    for row in [{"method": ORIGINAL, "label": ORIGINAL, "epochs": 0, **baseline}, *record["rows"]]:
        lost = 100 * (row["test_accuracy"] - baseline["test_accuracy"])
        time = f"{latency[row['label']]['ratio']:.2f}" if row["label"] in latency else ""
        lines.append(
            f"{row['method']:<10}{row['label']:<20}{row['epochs']:>7}{100 * row['test_accuracy']:>9.2f}{lost:>+8.2f}"
            f"{row['parameters']:>12,}{row['multiply_accumulates'] / 1e6:>8.2f}{time:>7}"
        )
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


def main():
    values = flags.FLAGS
    config, out_dir = config_from_flags(filter_clustering.Config), Path(values.out_dir)
    network = keras.saving.load_model(values.network, compile=False)
    record = filter_clustering.run(network, points(values), config, Path(values.work_dir), values.verbose)
    found = tables(record["rows"])
    record = {
        "command": command_line(__name__),
        "network": Path(values.network).name,
        "latency": latencies(network, values.timed, values.rounds),
        "processor": {"cores": os.cpu_count(), **processor()},
        "curve": CURVE,
        "correlations": found,
        **record,
    }
    print(format_rows(record))
    plots.class_reports(reports(record), out_dir / "resnet20_clusters_classes.png")
    plots.cluster_tradeoff(record, out_dir / "resnet20_clusters.png")
    if found:
        print(format_tables(found))
        plots.cluster_correlations(found, out_dir / "resnet20_clusters_correlations.png")
    for row in record["rows"]:
        if row["label"] not in CURVE:
            del row["classes"]  # thirty numbers, for every point of the grid
    with atomic_path(out_dir / "resnet20_clusters.json") as partial:
        partial.write_text(json.dumps(record, indent=1))
    print(f"Record and figures: {out_dir}")


if __name__ == "__main__":
    run(main)
