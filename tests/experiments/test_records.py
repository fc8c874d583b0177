import dataclasses
import json
import subprocess
from pathlib import Path

import keras
import pytest
from script_flags import parse, script_fixture

import scc_tf

SAVED = Path(__file__).parents[2] / "saved_models"
SIZES, ERRORS = {0: 3000, 1: 3100, 2: 2900}, {0: 2.0, 1: 1.5, 2: 1.75}


script = script_fixture("records")


fresh_process = script_fixture("fresh_process")


def network(seed):
    keras.utils.set_random_seed(seed)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name=f"of_seed_{seed}")])
    return scc_tf.self_compress(plain, 4)


@pytest.mark.slow
def test_main_scores_every_seed_and_saves_the_first_with_its_card(script, tmp_path, monkeypatch, capsys):
    configs = []

    def run(config, work_dir, verbose):
        configs.append(config)
        record = {"validation_error": 1.0 + config.seed, "seconds": 60.0, "config": dataclasses.asdict(config)}
        return record, network(config.seed)

    def scored(model, data_dir):
        seed = int(model.layers[-1].name[-1])
        return {"stored_bytes": SIZES[seed], "test_error": ERRORS[seed]}

    monkeypatch.setattr(script.entropy_compression, "run", run)
    monkeypatch.setattr(script, "scored", scored)
    results, models = tmp_path / "results", tmp_path / "models"
    results.mkdir(), models.mkdir()
    folders = f"--out_dir={results}", f"--work_dir={tmp_path}", f"--model_dir={models}"
    parse("records.py", "--model=lenet_5", "--name=trial", "--gamma=3", *folders)
    script.main()
    assert [(config.model, config.seed, config.gamma) for config in configs] == [("lenet_5", s, 3.0) for s in range(3)]
    record = json.loads((results / "record_trial.json").read_text())
    assert record["command"] == "python experiments/records.py --model=lenet_5 --gamma=3.0 --name=trial"
    assert [(r["stored_bytes"], r["test_error"], r["config"]["seed"]) for r in record["records"]] == [
        (SIZES[seed], ERRORS[seed], seed) for seed in range(3)
    ]
    assert record["summary"]["stored_bytes"] == [3000, 100]
    assert record["summary"]["test_error"] == [1.75, 0.25]
    card = json.loads((models / "record_trial.json").read_text())
    assert (card["seed"], card["test_error"], card["command"]) == (0, 2.0, record["command"])
    path = models / "record_trial.scc"
    assert card["stored_bytes"] == path.stat().st_size
    assert scc_tf.load_packed(path).layers[-1].name == "of_seed_0"
    assert "mean: 3,000 ± 100 B, test error 1.75 ± 0.25 %" in capsys.readouterr().out


@pytest.mark.slow
def test_a_saved_network_is_scored_as_its_card_says(fresh_process):
    card = json.loads((SAVED / "record_lenet_300_100.json").read_text())
    model = scc_tf.load_packed(SAVED / "record_lenet_300_100.scc")
    assert fresh_process.scored(model) == pytest.approx({name: card[name] for name in ("stored_bytes", "test_error")})


@pytest.mark.slow
def test_what_is_scored_is_what_the_file_holds(fresh_process, monkeypatch):
    """A network that cannot be read back has no score."""

    def cut_short(model, path):
        path.write_bytes((SAVED / "record_lenet_300_100.scc").read_bytes()[:-1])

    monkeypatch.setattr(fresh_process.scc_tf, "save_packed", cut_short)
    with pytest.raises(subprocess.CalledProcessError):
        fresh_process.scored(network(0))
