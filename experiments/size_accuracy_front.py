"""How small at which error: a sweep of gamma on the networks that others have compressed.

python experiments/size_accuracy_front.py
python experiments/size_accuracy_front.py --models=lenet_5 --gammas=0.5,1,2,4

Every point is one short training (see --share) of seed 0, written to a packed file and scored in a fresh process. The
networks that records.py has trained in full are drawn in, from the records in --out_dir.
Finished trainings are cached in --work_dir, so a rerun goes on where it was, and a longer list of gammas costs the new
ones only. Writes front.json and front.png to --out_dir.
"""

import dataclasses
import json
from pathlib import Path

from absl import flags
from flags_from_config import command_line
from fresh_process import scored
from lab import entropy_compression, figures
from run_script import run

from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
flags.DEFINE_list("models", ["lenet_300_100", "lenet_5"], "networks, of " + ", ".join(entropy_compression.PRESETS))
flags.DEFINE_list("gammas", ["0.25", "0.5", "1", "2"], "values of gamma, as multiples of the network's own")
flags.DEFINE_float("share", 0.4, "share of the network's own epochs that each point is trained for", lower_bound=0)
flags.DEFINE_string("data_dir", "", "folder of the data sets; MNIST is embedded")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record and the figure")
flags.DEFINE_string("work_dir", str(ROOT / "work"), "folder of the cached trainings")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")


def points(name):
    """One record per gamma."""
    values = flags.FLAGS
    own = entropy_compression.Config(model=name, data_dir=values.data_dir)
    for multiple in values.gammas:
        epochs = max(round(values.share * own.epochs), 1)
        config = dataclasses.replace(own, gamma=float(multiple) * own.gamma, epochs=epochs)
        record, model = entropy_compression.run(config, Path(values.work_dir), values.verbose)
        record.update(scored(model, values.data_dir))
        print(f"{name}, gamma {config.gamma:g}: {record['stored_bytes']:,} B, {record['test_error']:.2f} %", flush=True)
        yield record


def trained_in_full(name, out_dir):
    """Size and error of each seed that records.py has left; an empty list where it has not run."""
    path = out_dir / f"record_{name}.json"
    seeds = json.loads(path.read_text())["records"] if path.exists() else []
    return [{key: seed[key] for key in ("stored_bytes", "test_error")} for seed in seeds]


def main():
    values = flags.FLAGS
    command, out_dir = command_line(__name__), Path(values.out_dir)
    networks = {
        name: {
            "points": list(points(name)),
            "records": trained_in_full(name, out_dir),
            "published": entropy_compression.PUBLISHED[name],
        }
        for name in values.models
    }
    with atomic_path(out_dir / "front.json") as partial:
        partial.write_text(json.dumps({"command": command, "networks": networks}, indent=1))
    figures.size_accuracy_front({"networks": networks}, out_dir / "front.png")
    print(f"Record and figure: {out_dir}")


if __name__ == "__main__":
    run(main)
