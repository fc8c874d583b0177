import pytest
from absl import app, logging
from script_flags import imported


def started(monkeypatch, *arguments):
    """How loud the logs were each time that ``main`` ran with this command line."""
    calls = []
    monkeypatch.setattr(app, "run", lambda main: main(["it", *arguments]))
    with imported("run_script", monkeypatch) as script:
        script.run(lambda: calls.append(logging.get_verbosity()))
    return calls


def test_the_script_runs_and_the_pipelines_are_heard(monkeypatch):
    assert started(monkeypatch) == [logging.INFO]


def test_arguments_that_are_no_flags_are_refused(monkeypatch):
    with pytest.raises(app.UsageError, match=r"Expected flags only\. Received: \['lenet_5'\]"):
        started(monkeypatch, "lenet_5")
