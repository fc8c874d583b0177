import json
import re
from types import SimpleNamespace

import keras
import pytest
from lab import models
from lab.stage import fingerprint
from script_flags import parse, script_fixture

from scc_tf.clustering import ChainCosts, chain_counts, find_chains

script = script_fixture("resnet20_clusters")


def test_every_point_is_asked_for_once_and_what_is_fine_tuned_comes_last(script):
    parse("resnet20_clusters.py")
    points = script.points(script.flags.FLAGS)
    tuned = 3 * 3 + 1
    # six methods, three draws of random filters; three points of the sweep are in the grid; two budgets
    assert len(points) == len(set(points)) == 8 * (6 + 3) + (27 - 3) + 2 + tuned
    assert [point.epochs for point in points] == [0] * (len(points) - tuned) + [20] * tuned
    assert {point.label for point in points if point.epochs} == {"2/2/2", "8/16/32", "15/31/63", "135754 parameters"}
    assert [point.label for point in points if point.epochs][:3] == ["8/16/32"] * 3  # what is asked for most
    assert sorted(point.draw for point in points if point.label == "2/2/2" and point.method == "random") == [0, 0, 1, 2]
    assert {point.label for point in points if point.method == "l1"} == {*script.CURVE}


@pytest.fixture(scope="module")
def network():
    return models.resnet20(seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--tuned=8/16/32,8/16", "one number per chain, 9, or per stage, 3. Received: (8, 16)"),
        ("--tuned=8/16/65", "Expected from 1 to 64 clusters for 'stage3_block1_conv1'. Received: 65"),
        ("--tuned=8-16-32", "as in 8/16/32. Received: '8-16-32'"),
        ("--tuned_methods=l2", "Expected a method of"),
        ("--timed=0/16/32", "Expected clusters to be a whole number from 1"),
        ("--timed=half", "Received: 'half'"),
        ("--budgets=half", "Expected a budget, as in 135754 or 20000000mac. Received: 'half'"),
        ("--budgets=9mac", "Expected a budget of at least"),
        ("--budgets=9", "Expected a budget of at least"),
        ("--tuned_budgets=135754,9", "Expected a budget of at least"),
    ],
)
def test_what_the_network_cannot_become_gives_one_clear_error_before_anything_is_made(
    script, network, monkeypatch, tmp_path, argument, message
):
    monkeypatch.setattr(script.keras.saving, "load_model", lambda *arguments, **options: network)
    monkeypatch.setattr(script.filter_clustering, "run", lambda *arguments: pytest.fail("it began"))
    parse("resnet20_clusters.py", argument, f"--out_dir={tmp_path}", f"--work_dir={tmp_path}")
    with pytest.raises(SystemExit, match=re.escape(message)):
        script.main()


@pytest.mark.slow
def test_the_record_has_tables_latency_and_figures(script, network, monkeypatch, tmp_path, capsys):
    network.save(tmp_path / "it.keras")
    chains = find_chains(network)
    costs = ChainCosts(network, chains)
    classes = {"cat": {"precision": 0.5, "recall": 0.6, "f1-score": 0.55}}

    def row(point):
        share = 0.5 if point.series == "budget" else costs.parameters(chain_counts(chains, point.clusters)) / 269_722
        return {
            "method": point.series, "label": point.label, "epochs": point.epochs, "classes": classes,
            "validation_accuracy": {"clusters": 0.8, "summed": 0.85}.get(point.method, 0.9), "test_accuracy": 0.2 + 0.7 * share, "parameters": round(269_722 * share),
            "multiply_accumulates": round(4e7 * share), "clusters": [2] * 3 + [16] * 3 + [40] * 3,
        }  # fmt: skip

    def run(loaded, points, config, work_dir, verbose):
        assert loaded.count_params() == network.count_params() and config.data == "cifar10"
        baseline = {
            "validation_accuracy": 0.92,
            "test_accuracy": 0.91,
            "parameters": 269_722,
            "multiply_accumulates": 40_000_000,
            "classes": classes,
        }
        return {"config": {}, "versions": {}, "baseline": baseline, "rows": [row(point) for point in points]}

    monkeypatch.setattr(script.filter_clustering, "run", run)

    def latencies(network, settings, rounds, lanes):
        labels = {"original": 1.0, **dict.fromkeys(settings, 0.5)}
        return {
            f"{label}{end}": {"ratio": ratio} for label, ratio in labels.items() for end in ("", f", {lanes} lanes")
        }

    monkeypatch.setattr(script, "latencies", latencies)
    monkeypatch.setattr(script, "Study", lambda *arguments: SimpleNamespace(made=lambda point: network))
    folders = [f"--{name}={tmp_path / name}" for name in ("out_dir", "model_dir")]
    folders.append(f"--network={tmp_path / 'it.keras'}")
    parse(
        "resnet20_clusters.py",
        *folders,
        "--timed=2/2/2",
        "--rounds=2",
        "--lanes=16",
        "--tuned_methods=l1,clusters,summed",
    )
    script.main()
    record = json.loads((tmp_path / "out_dir" / "resnet20_clusters.json").read_text())
    assert {path.name for path in (tmp_path / "out_dir").iterdir()} == {
        f"resnet20_clusters{end}" for end in (".json", ".png", "_classes.png", "_correlations.png")
    }
    assert record["command"] == (
        "python experiments/resnet20_clusters.py --tuned_methods=l1,clusters,summed --timed=2/2/2 --lanes=16 --rounds=2"
    )
    assert record["network"] == {"file": "it.keras", "weights": fingerprint(network)}
    card = json.loads((tmp_path / "model_dir" / "resnet20_half.json").read_text())
    assert card["method"] == "summed"  # the better one of the two on validation
    assert card["test_accuracy"] == pytest.approx(0.2 + 0.7 * 135_754 / 269_722)
    assert (tmp_path / "model_dir" / "resnet20_half.keras").exists()
    timed = {"original", "2/2/2", "135754 parameters", "20000000 multiply-accumulates"}
    assert set(record["latency"]) == {*timed, *(f"{label}, 16 lanes" for label in timed)}
    assert record["correlations"]["pearson"][2][4] == pytest.approx(0.967899, abs=5e-5)
    assert all(("classes" in row) == (row["label"] in script.CURVE) for row in record["rows"])
    out = capsys.readouterr().out
    assert "as it is  16 lanes" in out
    assert "0.967899" in out and "(0.938141)" in out and "13,054" in out


@pytest.mark.slow
def test_fewer_filters_take_less_time(script):
    layers = [keras.layers.Conv2D(96, 3, activation="relu", name=f"conv{number}") for number in (1, 2)]
    network = keras.Sequential([keras.Input((24, 24, 8)), *layers, keras.layers.Flatten(), keras.layers.Dense(2)])
    found = script.latencies(network, {"few": [4, 4]}, rounds=2, lanes=16)
    assert set(found) == {"original", "original, 16 lanes", "few", "few, 16 lanes"}
    assert found["few"]["ratio"] < 1 == found["original"]["ratio"]
    assert found["few, 16 lanes"]["ratio"] > 0
