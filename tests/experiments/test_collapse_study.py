import json

import pytest
from absl import flags
from lab.self_compression import Config
from script_flags import parse, script_fixture

script = script_fixture("collapse_study")


def row(safety_accuracy=0.95, start=0.99):
    return {
        "safety_accuracy_start": start,
        "safety_accuracy": safety_accuracy,
        "test_accuracy": 0.98,
        "size": {"stored_bytes": 5000},
        "events": [{"step": 3, "restored": {"a": 2, "b": 1}}],
        "reverted_to_step": None,
        "seconds": 1.0,
    }


@pytest.mark.parametrize(("drop", "collapsed"), [(0.0, False), (0.05, False), (0.051, True)])
@pytest.mark.parametrize("start", [1.0, 0.99, 0.97, 0.93])
def test_a_drop_of_the_threshold_is_no_collapse_whatever_the_rounding(script, start, drop, collapsed):
    point = script.study_point("safe", Config(), row(start - drop, start))
    assert point["collapsed"] is collapsed
    assert point["restored"] == 3


def test_collapses_are_counted_per_row(script):
    points = [{"row": name, "collapsed": fell} for name, fell in (("unsafe", True), ("unsafe", False), ("safe", False))]
    assert script.collapsed(points) == {"unsafe": {"collapsed": 1, "runs": 2}, "safe": {"collapsed": 0, "runs": 1}}


@pytest.mark.parametrize(
    "argument",
    [
        *(f"--gammas={g}" for g in ("", "0.1,much", "-1", "0", "nan", "0.1,inf", "0.1,")),
        "--runs=0",
        "--gamma=1",
        "--mode=safe",
    ],
)
def test_bad_flags_and_those_that_mean_nothing_here_are_refused(script, argument):
    with pytest.raises(flags.Error):
        parse("collapse_study.py", argument)


def test_main_runs_every_gamma_seed_and_row_and_writes_the_study(script, tmp_path, monkeypatch, capsys):
    runs, drawn = [], []

    def compress(config, name, *rest):
        runs.append((config.seed, config.gamma, name))
        return None, row(0.8 if name == "unsafe" else 0.97)

    pipeline = script.self_compression
    monkeypatch.setattr(script.datasets, "load", lambda *arguments: None)
    monkeypatch.setattr(pipeline, "float_model", lambda *arguments: (None, {}))
    monkeypatch.setattr(pipeline, "safety_set_of", lambda *arguments: None)
    monkeypatch.setattr(pipeline, "compress", compress)
    monkeypatch.setattr(script.figures, "collapse_study", lambda *arguments: drawn.append(arguments))
    parse(
        "collapse_study.py",
        "--gammas=0.1,1",
        "--seed=3",
        "--runs=2",
        "--data_dir",
        "/home/me",
        f"--out_dir={tmp_path}",
        "--verbose",
        "0",
    )
    script.main()
    assert runs == [(s, g, name) for s in (3, 4) for g in (0.1, 1.0) for name in ("unsafe", "safe")]
    written = json.loads((tmp_path / "collapse_study.json").read_text())
    assert written["command"] == "python experiments/collapse_study.py --seed=3 --gammas=0.1,1 --runs=2"
    assert written["collapsed"] == {"unsafe": {"collapsed": 4, "runs": 4}, "safe": {"collapsed": 0, "runs": 4}}
    assert "/home" not in json.dumps(written)
    assert len(drawn) == 1
    assert "unsafe: 4 of 4 ended more than 5.0 points lower" in capsys.readouterr().out
