"""What becomes of 200,000 packed files that somebody has tampered with.

python benchmarks/fuzz_packed.py

Every case is one file of a small network with one to three changes: of its bytes, of the layers, settings and numbers
of its architecture, of its tensors, of its lengths; its checksum is right (`tests/export/fuzzing.py`). It is read in a
process with a limit on memory and on the time of each case. Loaded and refused with ValueError or OSError are the two
good ends; a crash, a hang, another exception or too much memory is a finding, with the number by which the case can be
made again (--only=NUMBER). A run that was stopped goes on where it was.
"""

import collections
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "export")]

flags.DEFINE_integer("cases", 200_000, "files to read", lower_bound=1)
flags.DEFINE_integer("seed", 0, "of the cases", lower_bound=0)
flags.DEFINE_integer("chunk", 5_000, "cases of one process", lower_bound=1)
flags.DEFINE_integer("workers", 1, "processes at a time", lower_bound=1)
flags.DEFINE_integer("seconds", 10, "longest time of a case", lower_bound=1)
flags.DEFINE_integer("gibibytes", 2, "most memory that a case may take", lower_bound=1)
flags.DEFINE_integer("only", -1, "read this one case and say what becomes of it")
flags.DEFINE_integer("child", -1, "first case of this process; for the benchmark's own use")
flags.DEFINE_integer("end", 0, "where this process ends; for the benchmark's own use")
flags.DEFINE_string("work_dir", str(ROOT / "experiments" / "work" / "fuzz_packed"), "folder of what is done")
flags.DEFINE_string("out", str(ROOT / "experiments" / "results" / "fuzz_packed.json"), "file of the record")

GOOD = ("loaded", "refused")


def mapped():
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def read_cases(first, end, folder):
    """Read some cases in this very process; the file of the number says which one is being read."""
    import keras
    from fuzzing import case, corpus, outcome

    values, files = flags.FLAGS, corpus()
    for number in range(20):  # all that is loaded late is here before memory is limited
        outcome(case(files, values.seed, number))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (mapped() + (values.gibibytes << 30),) * 2)
    now = os.open(folder / f"now-{end}", os.O_CREAT | os.O_WRONLY)
    ends, slowest, findings = collections.Counter(), (0.0, first), []
    for number in range(first, end):
        os.pwrite(now, b"%012d" % number, 0)
        data = case(files, values.seed, number)
        signal.alarm(values.seconds)  # its default ends the process
        started = time.perf_counter()
        result = outcome(data)
        slowest = max(slowest, (time.perf_counter() - started, number))
        signal.alarm(0)
        ends[result] += 1
        if result.partition(" after ")[0] not in GOOD:
            findings.append({"case": number, "end": result})
        if number % 200 == 0:
            keras.utils.clear_session(free_memory=False)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    return {
        "first": first,
        "end": end,
        "ends": dict(ends),
        "slowest": slowest,
        "mebibytes": grown,
        "findings": findings,
    }


def _start(first, end, folder):
    values = flags.FLAGS
    command = [sys.executable, __file__, f"--child={first}", f"--end={end}", f"--seed={values.seed}"]
    command += [f"--seconds={values.seconds}", f"--gibibytes={values.gibibytes}", f"--work_dir={values.work_dir}"]
    log = (folder / f"log-{end}").open("wb")
    return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})


def _ended(process, first, end, folder):
    """What to do when a process is over: None, or the case from which on the rest of its chunk is left to do."""
    if process.returncode == 0:
        return None
    number = int((folder / f"now-{end}").read_text())
    cause = "hang" if process.returncode == -signal.SIGALRM else f"crash ({process.returncode})"
    part = {"first": first, "end": number + 1, "ends": {}, "slowest": [0.0, first], "mebibytes": 0.0}
    # what ended well before it in this process is counted as such: it would have been found otherwise
    part["ends"], part["findings"] = {"not told": number - first}, [{"case": number, "end": cause}]
    (folder / f"part-{first}.json").write_text(json.dumps(part))
    return number + 1


def run_all(folder):
    """Read all cases in processes of their own; returns the parts."""
    values = flags.FLAGS
    done = [json.loads(path.read_text()) for path in folder.glob("part-*.json")]
    covered = {number for part in done for number in range(part["first"], part["end"])}
    left, start = [], None
    for number in range(values.cases + 1):
        if number == values.cases or number in covered or (start is not None and number - start == values.chunk):
            if start is not None:
                left.append((start, number))
            start = None
        if start is None and number < values.cases and number not in covered:
            start = number
    running = {}
    while left or running:
        while left and len(running) < values.workers:
            first, end = left.pop(0)
            running[_start(first, end, folder)] = (first, end)
        time.sleep(0.5)
        for process in [process for process in running if process.poll() is not None]:
            first, end = running.pop(process)
            rest = _ended(process, first, end, folder)
            if rest is not None and rest < end:
                left.insert(0, (rest, end))
            print(f"{first:,} to {end:,}: {'done' if rest is None else 'a finding'}", flush=True)
    return [json.loads(path.read_text()) for path in sorted(folder.glob("part-*.json"))]


def record_of(parts):
    """What is written: how the cases ended, the slowest, the most memory, and the findings."""
    ends = sum((collections.Counter(part["ends"]) for part in parts), collections.Counter())
    findings = [finding for part in parts for finding in part["findings"]]
    values = flags.FLAGS
    return {
        "command": f"python benchmarks/fuzz_packed.py --cases={values.cases} --seed={values.seed}",
        "cases": sum(part["end"] - part["first"] for part in parts),
        "ends": dict(ends.most_common()),
        "crashes": sum(finding["end"].startswith("crash") for finding in findings),
        "hangs": sum(finding["end"] == "hang" for finding in findings),
        "other_exceptions": sum(not finding["end"].startswith(("crash", "hang")) for finding in findings),
        "findings": findings,
        "slowest_seconds": max(part["slowest"] for part in parts),
        "most_mebibytes_in_a_process": max(part["mebibytes"] for part in parts),
        "limits": {"seconds": values.seconds, "gibibytes": values.gibibytes},
    }


def main(argv):
    """Read all cases, or one, or those of a process."""
    del argv
    values = flags.FLAGS
    folder = Path(values.work_dir) / f"seed-{values.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if values.only >= 0:
        print(json.dumps(read_cases(values.only, values.only + 1, folder), indent=1))
        return
    if values.child >= 0:
        part = read_cases(values.child, values.end, folder)
        partial = folder / f"partial-{values.child}"
        partial.write_text(json.dumps(part))
        partial.rename(folder / f"part-{values.child}.json")
        return
    record = record_of(run_all(folder))
    Path(values.out).write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    app.run(main)
