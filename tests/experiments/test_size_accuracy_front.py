import json

import pytest
from script_flags import imported, parse

PUBLISHED = {"lenet_5": [["somebody", 1140, 0.98]], "lenet_300_100": [["somebody", 8560, 1.9]]}


@pytest.fixture
def script(monkeypatch):
    with imported("size_accuracy_front", monkeypatch) as module:
        monkeypatch.setattr(module.entropy_compression, "PUBLISHED", PUBLISHED)
        yield module


@pytest.mark.slow
def test_main_trains_a_point_for_every_gamma_and_draws_in_what_is_there(script, tmp_path, monkeypatch):
    configs = []

    def run(config, work_dir, verbose):
        configs.append(config)
        return {"config": {"gamma": config.gamma}}, config

    def scored(config, data_dir):
        return {"stored_bytes": round(4000 / config.gamma), "test_error": config.gamma}

    monkeypatch.setattr(script.entropy_compression, "run", run)
    monkeypatch.setattr(script, "scored", scored)
    seeds = [{"stored_bytes": 1200, "test_error": 1.0, "seconds": 9}]
    (tmp_path / "record_lenet_5.json").write_text(json.dumps({"records": seeds}))
    parse("size_accuracy_front.py", "--gammas=0.5,1", "--share=0.1", f"--out_dir={tmp_path}", "--data_dir=/home/me")
    script.main()
    own = {name: script.entropy_compression.Config(model=name) for name in ("lenet_300_100", "lenet_5")}
    assert [(c.model, c.gamma, c.epochs) for c in configs] == [
        (name, multiple * own[name].gamma, round(0.1 * own[name].epochs)) for name in own for multiple in (0.5, 1.0)
    ]
    written = json.loads((tmp_path / "front.json").read_text())
    assert written["command"] == "python experiments/size_accuracy_front.py --gammas=0.5,1 --share=0.1"
    networks = written["networks"]
    assert [point["stored_bytes"] for point in networks["lenet_5"]["points"]] == [2000, 1000]
    assert networks["lenet_5"]["records"] == [{"stored_bytes": 1200, "test_error": 1.0}]
    assert networks["lenet_300_100"]["records"] == []
    assert networks["lenet_300_100"]["published"] == PUBLISHED["lenet_300_100"]
    assert "/home" not in json.dumps(written)
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_a_share_of_less_than_an_epoch_is_one(script, monkeypatch, tmp_path):
    configs = []
    monkeypatch.setattr(script.entropy_compression, "run", lambda config, *rest: (configs.append(config) or {}, None))
    monkeypatch.setattr(script, "scored", lambda *arguments: {"stored_bytes": 1, "test_error": 1.0})
    parse("size_accuracy_front.py", "--gammas=1", "--share=0.001")
    list(script.points("lenet_5"))
    assert [config.epochs for config in configs] == [1]
