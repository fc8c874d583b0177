import json

import pytest
from absl import flags
from lab.self_compression import Config
from script_flags import parse, script_fixture

script = script_fixture("target_bytes")


def row(target_bytes, stored_bytes):
    history = [{"step": 0, "stored_bytes": 4e4, "gamma": 0.1}, {"step": 9, "stored_bytes": stored_bytes, "gamma": 0.5}]
    return {
        "target": {
            "target_bytes": target_bytes,
            "stored_bytes": stored_bytes,
            "error_percent": 100 * (stored_bytes / target_bytes - 1),
            "reached": stored_bytes <= target_bytes,
            "outcome": "in words",
            "history": history,
        },
        "validation_accuracy": 0.98,
        "test_accuracy": 0.99,
        "safety_accuracy": 0.97,
        "safety_drop_points": 0.5,
        "safe": True,
        "events": [],
        "reverted_to_step": None,
        "seconds": 1.0,
    }


@pytest.mark.parametrize(
    "argument",
    ["--targets=", "--targets=0", "--targets=1e3", "--epochs=", "--epochs=4,0", "--target_bytes=9", "--mode=safe"],
)
def test_bad_flags_and_those_that_mean_nothing_here_are_refused(script, argument):
    with pytest.raises(flags.Error):
        parse("target_bytes.py", argument)


@pytest.mark.slow
def test_main_runs_every_target_and_writes_record_and_figure(script, tmp_path, monkeypatch, capsys):
    configs = []

    def compress(config, name, *rest):
        assert name == "safe"
        configs.append(config)
        return None, row(config.target_bytes, config.target_bytes - 10 if config.target_bytes < 3000 else 4000)

    pipeline = script.self_compression
    monkeypatch.setattr(script.datasets, "load", lambda *arguments: None)
    monkeypatch.setattr(pipeline, "float_model", lambda *arguments: (None, {"test_accuracy": 0.995}))
    monkeypatch.setattr(pipeline, "safety_set_of", lambda *arguments: None)
    monkeypatch.setattr(pipeline, "compress", compress)
    parse(
        "target_bytes.py",
        "--targets=1000,2500,3500",
        "--epochs=5,3",
        f"--out_dir={tmp_path}",
        "--data_dir=/home/me",
        "--verbose=0",
    )
    script.main()
    assert [config.target_bytes for config in configs] == [1000, 2500, 3500]
    assert [(config.size_model, config.epochs) for config in configs] == [
        ("entropy", 5),
        ("entropy", 3),
        ("entropy", 3),
    ]
    written = json.loads((tmp_path / "target_bytes.json").read_text())
    assert written["command"] == "python experiments/target_bytes.py --targets=1000,2500,3500 --epochs=5,3"
    assert [point["stored_bytes"] for point in written["points"]] == [990, 2490, 4000]
    assert written["points"][0]["test_error"] == pytest.approx(1.0)
    assert written["points"][0]["history"][-1]["gamma"] == 0.5
    assert "/home" not in json.dumps(written)
    assert (tmp_path / "target_bytes.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "2 of 3 targets hit within 2 %" in said
    assert "3,500 B wanted: 4,000 B (+14.29 %)" in said


def test_the_settings_of_the_pipeline_are_flags(script):
    flags.FLAGS(["target_bytes.py"])
    assert script.config_from_flags(Config) == Config(
        size_model="entropy", gamma=0.3, check_every=100, statistics_bits=5
    )
