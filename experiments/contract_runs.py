"""Is the safety contract kept in the files? Many safe runs of the main job in small, and each file asked.

nice -n 10 python experiments/contract_runs.py

Every gamma with both size models, without a target and with each of the targets: a small share of MNIST, few epochs.
Then the packed file is decoded and the TFLite files are run, on the safety set; what they answer is held against the
contract here, and what the reports of the writers say of it (``safe``) against that. Finished runs are cached in
--work_dir; an experiment that was stopped goes on. The record of an earlier one is replaced, also after every run.
"""

import dataclasses
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from absl import flags
from flags_from_config import command_line, config_from_flags, define_flags
from lab import datasets, self_compression
from run_script import run

import scc_tf
from scc_tf.atomic import atomic_path
from scc_tf.training.model import SIZE_MODELS

ROOT = Path(__file__).resolve().parent
define_flags(
    self_compression.Config,
    leave_out=("gamma", "size_model", "target_bytes", "mode", *self_compression.NETWORK_SETTINGS),
    float_epochs=3,
    epochs=3,
    check_every=25,
    safety_size=300,
)
flags.DEFINE_list("gammas", ["0.03", "0.1", "0.3", "1", "3"], "weights of the size term to start from")
flags.DEFINE_list("targets", ["0", "3000", "12000"], "sizes of the files, bytes; 0 leaves gamma alone")
flags.DEFINE_integer("images", 5000, "training images", lower_bound=64)
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record")
flags.DEFINE_string("work_dir", str(ROOT / "work" / "contract_runs"), "folder of the cached stages")
flags.DEFINE_integer("verbose", 0, "0 silent, 1 progress bar, 2 one line per epoch")
COMPUTES = ("float", "int8")


def small_data(images, data_dir):
    """MNIST with the first of its training images."""
    data = datasets.load("mnist", data_dir or None)
    return data._replace(train=datasets.Split(data.train.images[:images], data.train.labels[:images]))


def files_of(model, safety_set, data):
    """What the files of a model answer to the safety set, and what the reports of their writers say."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.scc"
        report = scc_tf.save_packed(model, path)
        decoded = scc_tf.load_packed(path).predict(safety_set.images, batch_size=100, verbose=0)
        found = {"scc": judged(report, decoded, safety_set, report.stored_bytes)}
        for compute in COMPUTES:
            path = Path(folder) / f"{compute}.tflite"
            samples = data.train.images[:200] if compute == "int8" else None
            report = scc_tf.export_tflite(model, path, compute=compute, representative_data=samples)
            answers = scc_tf.export.run_tflite(path, safety_set.images)
            found[f"tflite_{compute}"] = judged(report, answers, safety_set, report.bytes)
    return found


def judged(report, answers, safety_set, size):
    accuracy = float(np.mean(np.argmax(answers, axis=-1) == safety_set.labels))
    return {"bytes": size, "safety_accuracy": accuracy, "report_safe": report.safe}


def run_of(config, model, safety_set, data, work_dir, verbose):
    """One run: the record of its training and of its files."""
    small, row = self_compression.compress(config, "safe", model, safety_set, data, work_dir, verbose)
    reference, threshold = row["reference_accuracy"], config.threshold_points / 100
    files = files_of(small, safety_set, data)
    for file in files.values():
        file["safe"] = reference - file["safety_accuracy"] <= threshold + 1e-9
    return {
        "size_model": config.size_model,
        "gamma": config.gamma,
        "target_bytes": config.target_bytes,
        "reference_accuracy": reference,
        "safety_accuracy_start": row["safety_accuracy_start"],
        "safety_accuracy_finished": row["safety_accuracy"],
        "test_accuracy": row["test_accuracy"],
        "restored": self_compression.restored_channels(row),
        "reverted_to_step": row["reverted_to_step"],
        "outcome": row["target"]["outcome"] if "target" in row else "",
        "files": files,
    }


def line_of(one):
    target = f"{one['target_bytes']:,}" if one["target_bytes"] else "-"
    files = "".join(
        f"{file['bytes']:>9,} B {100 * file['safety_accuracy']:6.2f} % {'kept' if file['safe'] else 'BROKEN':<6}"
        f"{'' if file['safe'] == file['report_safe'] else ' NOT SAID'}"
        for file in one["files"].values()
    )
    return f"{one['size_model']:<8}{one['gamma']:>6g}{target:>8}{100 * one['reference_accuracy']:8.2f} %{files}"


def summary(runs):
    """How many files there are, keep the contract, and how many reports say what is the case."""
    files = [file for one in runs for file in one["files"].values()]
    return {
        "runs": len(runs),
        "files": len(files),
        "kept": sum(file["safe"] for file in files),
        "told_rightly": sum(file["safe"] == file["report_safe"] for file in files),
    }


def main():
    values = flags.FLAGS
    work_dir, out_dir = Path(values.work_dir), Path(values.out_dir)
    start = config_from_flags(self_compression.Config)
    data = small_data(values.images, start.data_dir)
    model, float_record = self_compression.float_model(start, data, work_dir, values.verbose)
    safety_set = self_compression.safety_set_of(start, model, data, work_dir, values.verbose)
    record = {
        "command": command_line(__name__),
        "seed": start.seed,
        "threshold_points": start.threshold_points,
        "float_test_accuracy": float_record["test_accuracy"],
        "float_safety_accuracy": scc_tf.safety.safety_accuracy(model, safety_set),
    }
    runs = []
    for target, size_model, gamma in itertools.product(values.targets, SIZE_MODELS, values.gammas):
        config = dataclasses.replace(start, gamma=float(gamma), size_model=size_model, target_bytes=int(target))
        runs.append(run_of(config, model, safety_set, data, work_dir, values.verbose))
        print(line_of(runs[-1]), flush=True)
        with atomic_path(out_dir / "contract_runs.json") as partial:
            partial.write_text(json.dumps({**record, "summary": summary(runs), "runs": runs}, indent=1))
    print(
        "{kept} of {files} files of {runs} runs keep the contract; {told_rightly} reports say so.".format(
            **summary(runs)
        )
    )


if __name__ == "__main__":
    run(main)
