import json
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from script_flags import parse, script_fixture

script = script_fixture("contract_runs")


@pytest.mark.parametrize("argument", ["--gamma=1", "--target_bytes=9", "--images=0"])
def test_flags_that_mean_nothing_here_are_refused(script, argument):
    with pytest.raises(flags.Error):
        parse("contract_runs.py", argument)


def test_every_run_is_recorded_with_what_its_files_answer(script, tmp_path, monkeypatch, capsys):
    labels = np.arange(20) % 10
    safety_set = SimpleNamespace(images=np.zeros((20, 1)), labels=labels)
    configs = []

    def compress(config, name, *rest):
        configs.append(config)
        row = {"reference_accuracy": 1.0, "safety_accuracy_start": 0.9, "safety_accuracy": 1.0, "test_accuracy": 0.9}
        return "model", {**row, "events": [], "reverted_to_step": None, "target": {"outcome": "in words"}}

    def files_of(model, chosen, data):
        answers = np.eye(10)[labels]
        wrong = answers.copy()
        wrong[:2] = 1 - wrong[:2]  # a tenth, and 5 points are allowed
        kept, broken = SimpleNamespace(safe=True), SimpleNamespace(safe=len(configs) == 2)
        return {
            "scc": script.judged(kept, answers, chosen, 900),
            "tflite_float": script.judged(broken, wrong, chosen, 2000),
        }

    pipeline = script.self_compression
    monkeypatch.setattr(script, "small_data", lambda *arguments: None)
    monkeypatch.setattr(pipeline, "float_model", lambda *arguments: (None, {"test_accuracy": 0.995}))
    monkeypatch.setattr(pipeline, "safety_set_of", lambda *arguments: safety_set)
    monkeypatch.setattr(script.scc_tf.safety, "safety_accuracy", lambda *arguments: 1.0)
    monkeypatch.setattr(pipeline, "compress", compress)
    monkeypatch.setattr(script, "files_of", files_of)
    parse("contract_runs.py", "--gammas=0.1", "--targets=0,3000", f"--out_dir={tmp_path}", "--work_dir=/home/me")
    script.main()
    assert [(c.gamma, c.size_model, c.target_bytes) for c in configs] == [
        (0.1, size_model, target) for target in (0, 3000) for size_model in ("bits", "entropy")
    ]
    written = json.loads((tmp_path / "contract_runs.json").read_text())
    assert written["summary"] == {"runs": 4, "files": 8, "kept": 4, "told_rightly": 7}
    assert "/home" not in json.dumps(written)
    said = capsys.readouterr().out
    assert "4 of 8 files of 4 runs keep the contract; 7 reports say so." in said
    assert said.count("BROKEN") == 4 and said.count("NOT SAID") == 1
