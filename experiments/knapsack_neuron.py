"""A knapsack of edges: the founding document's single neuron, and what it lacked, whole layers.

python experiments/knapsack_neuron.py
python experiments/knapsack_neuron.py weights.csv

First, every neuron of the file (a row per neuron, a cell "input x weight" per edge; default: the two examples of the
founding document) is reproduced with the fewest edges. Without a file, LeNet-300-100 is then pruned to budgets of
bytes, those of the whole .scc file: its edges are chosen by what they are worth and what bits they cost, as in a
knapsack, against the worthiest edges whatever their bits, and against the largest weights, all at the same size. All
are pruned in rounds, retrained and share weights.

Writes a JSON record and a figure to --out_dir; those of an earlier run are replaced. Finished stages are cached in
--work_dir, so that a run that was stopped goes on.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags
from flags_from_config import command_line, config_from_flags, define_flags
from lab import figures, knapsack_pruning
from seeds import mean_and_deviation

from scc_tf.atomic import atomic_path
from scc_tf.pruning import parse_neurons, reduce_neuron

ROOT = Path(__file__).resolve().parent
define_flags(knapsack_pruning.Config)
flags.DEFINE_list("budgets", ["4000", "6000"], "bytes of the whole file")
flags.DEFINE_integer("runs", 3, "number of seeds, from --seed on", lower_bound=1)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figure")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
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
    """One dictionary per budget and method: means over the seeds, and the sample deviation of the test error."""
    table = []
    for rows in zip(*(record["rows"] for record in records), strict=True):
        spread = {
            key: mean_and_deviation([row[key] for row in rows]) for key in ("stored_bytes", "edges", "test_error")
        }
        means, deviation = {key: mean for key, (mean, _) in spread.items()}, spread["test_error"][1]
        gaps = [row["gap"] for row in rows if row["gap"] is not None]
        named = {key: rows[0][key] for key in ("budget_bytes", "method")}
        table.append({**named, **means, "deviation": deviation, "largest_gap": max(gaps, default=None)})
    return table


def print_summary(table):
    for row in table:
        error = f"{row['test_error']:.2f}" + ("" if row["deviation"] is None else f" ± {row['deviation']:.2f}")
        gap = "" if row["largest_gap"] is None else f"   at most {row['largest_gap']:.0e} below the fractional bound"
        size = f"{row['budget_bytes']:>8,} B: {row['method']:<9} {error} %"
        print(f"{size}   {row['stored_bytes']:,.0f} B, {row['edges']:,.0f} edges{gap}")


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
    records, budgets = [], list(map(int, values.budgets))
    for seed in range(values.seed, values.seed + values.runs):
        config = config_from_flags(knapsack_pruning.Config, seed=seed)
        records.append(knapsack_pruning.run(config, budgets, Path(values.work_dir), values.verbose))
    table = summary(records)
    float_error = np.mean([record["float"]["test_error"] for record in records])
    print(f"LeNet-300-100, test error over {values.runs} seeds; float: {float_error:.2f} %")
    print_summary(table)
    record = {"command": command_line(__name__), "neurons": neurons, "summary": table, "records": records}
    path = Path(values.out_dir) / "knapsack_neuron.json"
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(record, indent=1))
    figures.byte_budgets(record, path.with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)
