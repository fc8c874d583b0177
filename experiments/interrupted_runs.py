"""Kill short main jobs at random moments, let them go on, and compare the files byte for byte.

python experiments/interrupted_runs.py

Each job trains a float network on some MNIST images, chooses a safety set and compresses, with channels that are cut
and restored; then it writes network.scc. There are three: bit depths as the size, coded bits as the size, and a size
that is asked for. Each runs once undisturbed, and once more as a check that it gives the same bytes at all. Then the
jobs are killed in turn (SIGKILL to the whole process group), some of them twice, and started again until they end.
Writes a JSON record to --out_dir, also after every run; an experiment that was stopped goes on. The folders of the
runs are in --work_dir.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
from absl import flags
from flags_from_config import command_line
from lab import datasets, self_compression
from run_script import run

import scc_tf
from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parent
COMMON = {"float_epochs": 2, "epochs": 5, "safety_size": 200, "check_every": 20, "cut_share": 0.01}
CODED = {"size_model": "entropy", "statistics_bits": 5, "exponent_learning_rate": 0.1}
JOBS = {
    "bits": {"gamma": 0.5, "threshold_points": 2.0},
    "entropy": {"gamma": 8.0, "threshold_points": 4.0, **CODED},
    "target": {"gamma": 1.0, "threshold_points": 4.0, "target_bytes": 3000, **CODED},
}
TWICE = 3  # every so many runs is killed twice

flags.DEFINE_integer("runs", 20, "runs that are killed", lower_bound=1)
flags.DEFINE_integer("seed", 0, "seed of the moments")
flags.DEFINE_integer("examples", 3200, "training images of a job", lower_bound=256)
flags.DEFINE_enum("job", "", ["", *JOBS], "do only this job, in --work_dir, as the experiment asks itself to")
flags.DEFINE_string("out_dir", str(ROOT / "results"), "folder of the record")
flags.DEFINE_string("work_dir", str(ROOT / "work" / "interrupted"), "folder of the runs")


def do(job, folder, examples):
    """The main job in small."""
    config = self_compression.Config(**COMMON, **JOBS[job])
    keras.utils.set_random_seed(config.seed)
    data = datasets.load("mnist")
    parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
    few = {name: datasets.Split(part.images[:examples], part.labels[:examples]) for name, part in parts.items()}
    data = data._replace(**few)
    model, _ = self_compression.float_model(config, data, folder, verbose=0)
    safety_set = self_compression.safety_set_of(config, model, data, folder, verbose=0)
    compressed, _ = self_compression.compress(config, "safe", model, safety_set, data, folder, verbose=0)
    scc_tf.save_packed(compressed, folder / "network.scc")


def start(job, folder, examples):
    """A process of its own, and the leader of its group."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, f"--job={job}", f"--work_dir={folder}", f"--examples={examples}"]
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def wait(process, seconds=None):
    """Kill a process after so many seconds unless it has ended; returns how long it ran, and whether it ended."""
    began = time.monotonic()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return time.monotonic() - began, False
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        raise SystemExit(f"A job failed, see its log.txt: {process.args}")
    return time.monotonic() - began, True


def reached(folder):
    """How far a job has come, by the files that are there."""
    if (folder / "network.scc").exists():
        return "done"
    if list(folder.glob("safe-*/record.json")):
        return "packing"
    if list(folder.glob("safe-*/backup/trained/record.json")):
        return "finishing"
    if epochs := [int(p.name.split("-")[1].split(".")[0]) for p in folder.glob("safe-*/backup/trained/epochs/epoch-*")]:
        return "end of compression" if max(epochs) == COMMON["epochs"] else f"compression, epoch {max(epochs) + 1}"
    if list(folder.glob("safety-*.npz")):
        return "compression, epoch 1"
    return "safety set" if list(folder.glob("float-*/record.json")) else "float training"


def result(folder):
    """What a finished job shows: a checksum of its file, and what happened on the way."""
    content = (folder / "network.scc").read_bytes()
    (record,) = [json.loads(path.read_text()) for path in folder.glob("safe-*/record.json")]
    channels = [look["channels"] for look in record["network"]]
    return {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "restorations": len(record["events"]),
        "channels_cut": channels[0] - channels[-1],
        "reverted_to_step": record["reverted_to_step"],
    }


def reference(job, values):
    """A job that nothing disturbs, twice."""
    folders = [Path(values.work_dir) / f"{job}-{name}" for name in ("reference", "repeated")]
    seconds = [wait(start(job, folder, values.examples))[0] for folder in folders]
    first, second = (result(folder) for folder in folders)
    return {**first, "seconds": seconds[0], "repeats": first["sha256"] == second["sha256"]}


def moments(values):
    """``[(job, shares of its time at which to kill it), …]``, spread evenly over the whole time of each job."""
    draw, names = random.Random(values.seed), list(JOBS)
    per_job = -(-values.runs // len(names))
    strata = {job: draw.sample(range(per_job), per_job) for job in names}
    plan = []
    for number in range(values.runs):
        job = names[number % len(names)]
        shares = [(strata[job].pop() + draw.random()) / per_job]
        if number % TWICE == TWICE - 1:
            shares.append(draw.random())
        plan.append((job, shares))
    return plan


def interrupted(number, job, shares, expected, values):
    """One run that is killed and goes on; the second moment is one of the time that is left.

    One that has ended before it could be killed, since the machine had less to do, is done again with sooner moments.
    """
    folder = Path(values.work_dir) / f"run-{number:02}"
    shutil.rmtree(folder, ignore_errors=True)
    kills, left = [], expected["seconds"]
    for share in shares:
        seconds, ended = wait(start(job, folder, values.examples), share * left)
        if ended and not kills:
            return interrupted(number, job, [0.8 * share for share in shares], expected, values)
        if ended:
            break
        kills.append({"after_seconds": seconds, "during": reached(folder)})
        left = max(left - seconds, 0.3 * expected["seconds"])  # an epoch may be lost, and the start takes time again
    wait(start(job, folder, values.examples))
    found = result(folder)
    return {"job": job, "kills": kills, **found, "same": found["sha256"] == expected["sha256"]}


def main():
    values = flags.FLAGS
    if values.job:
        do(values.job, Path(values.work_dir), values.examples)
        return
    path = Path(values.out_dir) / "interrupted_runs.json"
    state = Path(values.work_dir) / "so_far.json"
    record = json.loads(state.read_text()) if state.exists() else {"references": {}, "runs": []}
    record = {"command": command_line(__name__), "settings": COMMON, "jobs": JOBS, **record}

    def write():
        for place in (state, path):
            with atomic_path(place) as partial:
                partial.write_text(json.dumps(record, indent=1))

    for job in JOBS:
        if job not in record["references"]:
            record["references"][job] = reference(job, values)
            write()
        print(f"{job:8}", record["references"][job], flush=True)
    for number, (job, shares) in enumerate(moments(values)):
        if number >= len(record["runs"]):
            record["runs"].append(interrupted(number, job, shares, record["references"][job], values))
            write()
        entry = record["runs"][number]
        kills = "; ".join(f"{kill['after_seconds']:5.1f} s, {kill['during']}" for kill in entry["kills"]) or "no kill"
        print(f"{number:3}  {job:8} {entry['bytes']:6,} B  {'same' if entry['same'] else 'OTHER':6}{kills}", flush=True)
    same = sum(entry["same"] for entry in record["runs"])
    print(f"{same} of {len(record['runs'])} runs that were killed ended with the same file. Record: {path}")


if __name__ == "__main__":
    run(main)
