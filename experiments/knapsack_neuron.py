"""A knapsack of edges: the founding document's single neuron, and what it lacked, whole layers.

python experiments/knapsack_neuron.py
python experiments/knapsack_neuron.py weights.csv

First, every neuron of the file (a row per neuron, a cell "input x weight" per edge; default: the two examples of the
founding document) is reproduced with the fewest edges. Without a file, LeNet-300-100 is then pruned to budgets of
bytes, its edges chosen by saliency as in a knapsack, against the largest weights at the same budget. Both are
fine-tuned.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags
from flags_from_config import command_line, config_from_flags, define_flags

from scc_tf.atomic import atomic_path
from scc_tf.pipelines import knapsack_pruning
from scc_tf.pruning import parse_neurons, reduce_neuron

ROOT = Path(__file__).resolve().parent
define_flags(knapsack_pruning.Config)
flags.DEFINE_list("budgets", ["2000", "4000", "8000", "16000"], "bytes for the edges")
flags.DEFINE_integer("runs", 3, "number of seeds, from --seed on", lower_bound=1)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")


@flags.validator("budgets", "Expected whole numbers of bytes above 0, separated by commas.")
def _are_bytes(budgets):
    return bool(budgets) and all(budget.isdecimal() and int(budget) > 0 for budget in budgets)


def reduced_neurons(text):
    """One dictionary per neuron; a neuron that cannot be reduced says why."""
    rows = []
    for neuron in parse_neurons(text):
        row = {
            "inputs": list(map(str, neuron.inputs)),
            "weights": list(map(str, neuron.weights)),
            "net": str(neuron.net),
        }
        try:
            reduction = reduce_neuron(*neuron)
            edges = {str(neuron.inputs[e]): w for e, w in zip(reduction.edges, reduction.weights, strict=True)}
            rows.append({**row, "edges": edges})
        except ValueError as error:
            rows.append({**row, "error": str(error)})
    return rows


def print_neurons(rows):
    for number, row in enumerate(rows, start=1):
        found = ", ".join(f"input {i} with weight {w}" for i, w in row.get("edges", {}).items()) or "no edge"
        print(f"neuron {number}: {len(row['inputs'])} edges, net {row['net']} -> {row.get('error', found)}")


def summary(records):
    """``{budget: {method: [mean, sample deviation] of the test error in per cent}}``."""
    table = {}
    for index, row in enumerate(records[0]["rows"]):
        errors = [100 * (1 - record["rows"][index]["test_accuracy"]) for record in records]
        deviation = float(np.std(errors, ddof=1)) if len(errors) > 1 else None
        table.setdefault(str(row["budget_bytes"]), {})[row["method"]] = [float(np.mean(errors)), deviation]
    return table


def main(argv):
    if len(argv) > 2:
        raise app.UsageError(f"Expected one CSV file at most. Received: {argv[1:]}")
    values = flags.FLAGS
    path = Path(argv[1]) if len(argv) == 2 else ROOT / "data" / "weights.csv"
    try:
        neurons = reduced_neurons(path.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: {error}") from error
    print_neurons(neurons)
    if len(argv) == 2:
        return
    records = []
    for seed in range(values.seed, values.seed + values.runs):
        config = config_from_flags(knapsack_pruning.Config, seed=seed)
        records.append(knapsack_pruning.run(config, list(map(int, values.budgets)), values.verbose))
    table = summary(records)
    float_error = 100 * (1 - np.mean([record["float"]["test_accuracy"] for record in records]))
    print(f"LeNet-300-100, test error in % over {values.runs} seeds; float: {float_error:.2f}")
    for budget, methods in table.items():
        cells = [f"{m} {v[0]:.2f}" + (f" ± {v[1]:.2f}" if v[1] is not None else "") for m, v in methods.items()]
        print(f"{int(budget):>8,} B: " + "   ".join(cells))
    record = {"command": command_line(__name__), "neurons": neurons, "summary": table, "records": records}
    with atomic_path(Path(values.out_dir) / "knapsack_neuron.json") as partial:
        partial.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    app.run(main)
