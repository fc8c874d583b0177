import json
import subprocess
import sys

import pytest
from absl import flags
from script_flags import parse, script_fixture

script = script_fixture("interrupted_runs")

JOB = """
import json, pathlib, sys, time
folder, content, seconds = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
time.sleep(seconds)
(folder / "safe-1").mkdir()
record = {"network": [{"channels": 9.0}, {"channels": 7.0}], "events": [{}], "reverted_to_step": None}
(folder / "safe-1" / "record.json").write_text(json.dumps(record))
(folder / "network.scc").write_text(content)
"""


def test_moments_are_seeded_and_spread_over_the_whole_time(script):
    parse("interrupted_runs.py", "--runs=20", "--seed=3")
    plan = script.moments(flags.FLAGS)
    assert plan == script.moments(flags.FLAGS)
    assert sum(len(shares) == 2 for _, shares in plan) == 6
    for job in script.JOBS:
        first = sorted(shares[0] for name, shares in plan if name == job)
        assert all(0 <= share < 1 for share in first)
        assert max(b - a for a, b in zip([0, *first], [*first, 1], strict=True)) < 0.35


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["same", "fault"])
def test_killed_runs_are_started_again_and_compared(script, tmp_path, monkeypatch, capsys, outcome):
    def start(job, folder, examples):
        folder.mkdir(parents=True, exist_ok=True)
        starts.append(folder.name)
        seconds = 600 if starts.count("run-00") in (1, 2) else 0
        arguments = [str(folder), outcome if starts.count("run-00") == 3 else "same", str(seconds)]
        return subprocess.Popen([sys.executable, "-c", JOB, *arguments], start_new_session=True)

    starts = []

    monkeypatch.setattr(script, "start", start)
    monkeypatch.setattr(script, "JOBS", {"bits": {}})
    monkeypatch.setattr(script, "moments", lambda values: [("bits", [0.5, 0.3])])
    parse("interrupted_runs.py", f"--out_dir={tmp_path}", f"--work_dir={tmp_path / 'work'}")
    script.main()
    record = json.loads((tmp_path / "interrupted_runs.json").read_text())
    (run,) = record["runs"]
    assert record["references"]["bits"]["repeats"]
    assert [kill["during"] for kill in run["kills"]] == ["float training"] * 2
    assert (run["same"], run["restorations"], run["channels_cut"]) == (outcome == "same", 1, 2)
    assert f"{int(outcome == 'same')} of 1 runs that were killed ended with the same file" in capsys.readouterr().out
    script.main()  # all is there
    assert json.loads((tmp_path / "interrupted_runs.json").read_text()) == record


def test_a_job_that_fails_ends_the_experiment(script, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], start_new_session=True)
    with pytest.raises(SystemExit, match="A job failed"):
        script.wait(process)
