"""Deep Compression: prune in rounds, share weights, code; the paper's tables beside ours.

python experiments/deep_compression.py --model=lenet_300_100
python experiments/deep_compression.py --model=lenet_5 --runs=3

Writes a JSON record and figures to --out_dir as deep_<model>, and the compressed network of the first seed to
--model_dir; those of an earlier run are replaced. Finished stages are cached in --work_dir, so a rerun (or a run that
was stopped) goes on where it was.
"""

import json
from pathlib import Path

from absl import flags
from flags_from_config import command_line, config_from_flags, define_flags
from lab import deep_compression, figures
from model_card import save_with_card
from run_script import run
from seeds import mean_and_deviation

from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
define_flags(deep_compression.Config)
flags.DEFINE_integer("runs", 1, "number of seeds, from --seed on", lower_bound=1)
flags.DEFINE_boolean("compare", True, "whether to compare pruning, sharing and both, with the first seed")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figures")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached stages")
flags.DEFINE_string("model_dir", str(ROOT.parent / "saved_models"), "folder of the compressed network and its card")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")

RATES = (  # column, heading, format
    ("kept", "kept %", "{:.1f}"),
    ("weight_bits", "weight", "{:.0f}"),
    ("weight_bits_huffman", "+Huffman", "{:.1f}"),
    ("index_bits", "index", "{:.0f}"),
    ("index_bits_huffman", "+Huffman", "{:.1f}"),
    ("rate", "rate %", "{:.2f}"),
    ("rate_huffman", "+Huffman", "{:.2f}"),
)
SUMMARY = {  # name -> heading, value of a record, format, field of the paper
    "float_error": ("float, test error", lambda record: record["float"]["test_error"], "{:.2f} %", "float_error"),
    "error": ("compressed, test error", lambda record: record["final"]["test_error"], "{:.2f} %", "error"),
    "stored_bytes": (".scc, range coder", lambda record: record["final"]["stored_bytes"], "{:,.0f} B", None),
    "ratio": ("  times smaller", lambda record: record["final"]["ratio"], "{:.0f}x", None),
    "huffman_bytes": (".scc, Huffman", lambda record: record["final"]["huffman_bytes"], "{:,.0f} B", "bytes"),
    "huffman_ratio": ("  times smaller", lambda record: record["final"]["huffman_ratio"], "{:.0f}x", "ratio"),
    "seconds": ("time of a seed", lambda record: record["seconds"], "{:.0f} s", None),
}


def summary(records):
    """``{name: [mean, sample deviation]}`` over the seeds; no deviation of a single one."""
    return {
        name: mean_and_deviation([value(record) for record in records]) for name, (_, value, _, _) in SUMMARY.items()
    }


def format_rates(rates, paper):
    """The columns of the paper's table 2 or 3: bits and rates of every layer, the paper's in brackets."""
    lines = [f"{'':10}{'weights':>10}" + "".join(f"{heading:>16}" for _, heading, _ in RATES)]
    for name, row in rates.items():
        theirs = _of_paper(paper, name)
        cells = []
        for column, _, form in RATES:
            ours = form.format(row[column]) if column in row else ""
            cells.append(f"{ours} ({theirs[column]:g})" if column in theirs else ours)
        lines.append(f"{name:10}{row['weights']:>10,}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def _of_paper(paper, name):
    if name == "total":
        return paper.get("total", {})
    row = paper.get("layers", {}).get(name, ())
    return dict(zip(deep_compression.COLUMNS, row, strict=False))


def format_summary(table, paper, seeds):
    lines = []
    for name, (heading, _, form, theirs) in SUMMARY.items():
        mean, deviation = table[name]
        spread = "" if deviation is None else " ± " + form.format(deviation)
        said = f" (paper: {paper[theirs]:,g})" if theirs in paper else ""
        lines.append(f"{heading:24}{form.format(mean) + spread}{said}")
    return "\n".join([*lines, f"seeds {seeds}; files are whole; the paper leaves out Huffman tables and biases"])


def main():
    values = flags.FLAGS
    out_dir, work_dir, command = Path(values.out_dir), Path(values.work_dir), command_line(__name__)
    seeds = range(values.seed, values.seed + values.runs)
    records, first = [], None
    for seed in seeds:
        config = config_from_flags(deep_compression.Config, seed=seed)
        compare = values.compare and seed == values.seed
        record, model = deep_compression.run(config, work_dir, compare, values.verbose)
        records.append(record)
        first = first or model
    paper = deep_compression.PAPER.get(values.model, {})
    table = summary(records)
    print(format_rates(records[0]["rates"], paper))
    print(format_summary(table, paper, list(seeds)))
    name = f"deep_{values.model}"
    with atomic_path(out_dir / f"{name}.json") as partial:
        partial.write_text(json.dumps({"command": command, "summary": table, "records": records}, indent=1))
    figures.storage_breakdown(records[0], out_dir / f"{name}_storage.png")
    if records[0]["points"]:
        figures.compression_tradeoff(records[0], out_dir / f"{name}_tradeoff.png")
    error = records[0]["final"]["test_error"]
    save_with_card(Path(values.model_dir), name, first, command, test_error=error)
    print(f"Record and figures: {out_dir}; network: {values.model_dir}")


if __name__ == "__main__":
    run(main)
