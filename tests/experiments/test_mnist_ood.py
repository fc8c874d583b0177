import json

import keras
import numpy as np
import pytest
from lab import datasets
from script_flags import parse, script_fixture

import scc_tf
from scc_tf.datasets import Dataset, Split

script = script_fixture("mnist_ood")


@pytest.fixture
def network(monkeypatch):
    """A float network on noise, with the data sets and the trainings of the script."""
    rng = np.random.default_rng(0)
    split = Split(rng.random((40, 4, 4, 1), np.float32), np.arange(40) % 3)
    monkeypatch.setattr(datasets, "load", lambda name: Dataset(name, split, split, split, ("a", "b", "c")))
    monkeypatch.setattr(datasets, "load_split", lambda *of: Split(-split.images, split.labels))
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(name="flatten"), keras.layers.Dense(3, name="head")]
    return keras.Sequential(layers, name="network")


@pytest.mark.slow
def test_each_network_is_compared_with_the_float_one_of_its_architecture(
    script, network, tmp_path, monkeypatch, capsys
):
    asked = []
    monkeypatch.setattr(script, "NETWORKS", {"one": "wide", "two": "deep", "absent": "deep"})
    monkeypatch.setattr(script, "float_networks", lambda data, work_dir: lambda name: asked.append(name) or network)
    for name in ("one", "two"):
        scc_tf.save_packed(scc_tf.self_compress(network, 4), tmp_path / f"{name}.scc")
    parse("it", f"--model_dir={tmp_path}", f"--out_dir={tmp_path / 'out'}", f"--work_dir={tmp_path}")
    script.main()
    assert asked == ["wide", "deep"]
    record = json.loads((tmp_path / "out" / "mnist_ood.json").read_text())
    assert record["command"] == "python experiments/mnist_ood.py"
    assert list(record["reports"]) == ["one", "two"]
    assert record["reports"]["one"]["after"]["footprint"]["stored_bytes"] == (tmp_path / "one.scc").stat().st_size
    assert 0 <= record["reports"]["one"]["after"]["ood"]["scores"]["energy"]["auroc"] <= 1
    assert "curves" not in record["reports"]["one"]["after"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["mnist_ood_one.png", "mnist_ood_two.png"]
    assert "two" in capsys.readouterr().out


def test_the_networks_are_those_that_the_repository_has(script):
    packed = {path.stem for path in (script.ROOT.parent / "saved_models").glob("*.scc")}
    of_cifar10 = {name for name in packed if name.startswith("cifar10_") or "resnet20" in name}
    assert packed - of_cifar10 <= set(script.NETWORKS)


def test_float_networks_are_made_once(script, monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(script, "float_network", lambda trainer: made.append(trainer.config.model) or ("net", {}))
    monkeypatch.setattr(script.self_compression, "float_model", lambda *of: made.append("main") or ("main net", {}))
    float_model = script.float_networks(None, tmp_path)
    assert [float_model(name) for name in ("lenet_5", "mnist_cnn", "lenet_5")] == ["net", "main net", "net"]
    assert made == ["lenet_5", "main"]
