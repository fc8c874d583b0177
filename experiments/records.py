"""The smallest files: entropy-penalised self-compression, everything counted, scored in a fresh process.

python experiments/records.py --model=lenet_300_100 --runs=3

Trains each seed, writes its packed file, and lets another process decode that and score it on test. Writes a JSON
record to --out_dir as record_<name>, and the file of the first seed with its card to --model_dir; those of an earlier
run are replaced. Finished trainings are cached in --work_dir, so a rerun (or a run that was stopped) goes on where it
was.
"""

import json
from pathlib import Path

from absl import flags
from flags_from_config import command_line, config_from_flags, define_flags
from fresh_process import scored
from lab import entropy_compression
from model_card import save_with_card
from run_script import run
from seeds import mean_and_deviation

from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
define_flags(entropy_compression.Config)
flags.DEFINE_integer("runs", 3, "number of seeds, from --seed on", lower_bound=1)
flags.DEFINE_string("name", "", "of the record and the network; that of the model where it is empty")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached trainings")
flags.DEFINE_string("model_dir", str(ROOT.parent / "saved_models"), "folder of the compressed network and its card")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")

SUMMARY = ("stored_bytes", "test_error", "validation_error", "seconds")


def main():
    values = flags.FLAGS
    out_dir, command = Path(values.out_dir), command_line(__name__)
    records, first = [], None
    for seed in range(values.seed, values.seed + values.runs):
        config = config_from_flags(entropy_compression.Config, seed=seed)
        record, model = entropy_compression.run(config, Path(values.work_dir), values.verbose)
        records.append({**record, **scored(model, values.data_dir)})
        first = first or model
        print(f"seed {seed}: {records[-1]['stored_bytes']:,} B, test error {records[-1]['test_error']:.2f} %")
    table = {name: mean_and_deviation([record[name] for record in records]) for name in SUMMARY}
    (size, spread), (error, error_spread) = table["stored_bytes"], table["test_error"]
    print(f"mean: {size:,.0f} ± {spread or 0:.0f} B, test error {error:.2f} ± {error_spread or 0:.2f} %")
    for name, published, theirs in entropy_compression.PUBLISHED[values.model]:
        print(f"{name:32}{published:>8,} B, test error {theirs:.2f} %")
    name = f"record_{values.name or values.model}"
    with atomic_path(out_dir / f"{name}.json") as partial:
        partial.write_text(json.dumps({"command": command, "summary": table, "records": records}, indent=1))
    measured = {"seed": values.seed, "test_error": records[0]["test_error"]}
    save_with_card(Path(values.model_dir), name, first, command, **measured)
    print(f"Record: {out_dir / name}.json; network: {values.model_dir}")


if __name__ == "__main__":
    run(main)
