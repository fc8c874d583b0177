import dataclasses
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from absl import flags
from lab import datasets
from lab.self_compression import Config
from safe_records import record, strict
from script_flags import parse, script_fixture

import scc_tf
from scc_tf.datasets import Dataset, Split

script = script_fixture("cifar10_safe")


def test_the_settings_are_those_of_cifar10(script, tmp_path):
    (tmp_path / "other.keras").touch()
    parse("cifar10_safe.py", f"--float_file={tmp_path / 'other.keras'}", "--gamma=0.2")
    config = script.config_from_flags(Config, **script.NETWORK)
    assert (config.data_set, config.model, config.mirror, config.shift) == ("cifar10", "resnet20", True, 4)
    assert (config.size_model, config.gamma) == ("entropy", 0.2)
    assert config.check_every * config.batch_size == pytest.approx(22_500, rel=0.01)  # about twice an epoch
    assert script.command_line("cifar10_safe") == "python experiments/cifar10_safe.py --gamma=0.2"
    with pytest.raises(flags.Error):
        parse("cifar10_safe.py", "--model=lenet_5")
    parse("cifar10_safe.py", "--float_file=", f"--data_dir={tmp_path}")
    assert script.command_line("cifar10_safe") == "python experiments/cifar10_safe.py --float_file="


def test_a_float_network_that_is_not_there_gives_one_clear_error(script, tmp_path):
    parse("cifar10_safe.py", f"--float_file={tmp_path / 'none.keras'}")
    with pytest.raises(SystemExit, match=r"Expected float_file to be an existing Keras file. Received: .*none.keras"):
        script.config_from_flags(Config, **script.NETWORK)


@pytest.fixture
def network(monkeypatch):
    """A float network on noise, with the data sets of the script."""
    rng = np.random.default_rng(0)
    split = Split(rng.random((40, 8, 8, 3), np.float32), np.arange(40) % 10)
    data = Dataset("cifar10", split, split, split, tuple("abcdefghij"))
    monkeypatch.setattr(datasets, "load", lambda name, data_dir=None: data)
    monkeypatch.setattr(datasets, "load_split", lambda *of: Split(-split.images, split.labels))
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, 2, name="conv"), keras.layers.Flatten(name="flatten")]
    return keras.Sequential([*layers, keras.layers.Dense(10, name="head")], name="network")


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "name"), [("safe", "cifar10"), ("unsafe", "other")])
def test_main_writes_files_record_and_figures(script, network, tmp_path, monkeypatch, capsys, mode, name):
    model = scc_tf.self_compress(network, 5)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    configs, drawn = [], []

    def run(config, work_dir, verbose):
        configs.append(config)
        rows = record(config.seed)["rows"]
        rows = {"float": rows["float"], mode: rows["safe"]}
        return {"config": dataclasses.asdict(config), "rows": rows}, SimpleNamespace(), {mode: model}

    monkeypatch.setattr(script.self_compression, "run", run)
    monkeypatch.setattr(script.self_compression, "float_model", lambda *of: (network, {}))
    monkeypatch.setattr(script.safe_report, "write_figures", lambda *arguments: drawn.append(arguments))
    network.save(float_file := tmp_path / "float.keras")
    folders = [f"--{folder}={tmp_path / folder}" for folder in ("out_dir", "work_dir", "model_dir")]
    parse("it", f"--float_file={float_file}", f"--mode={mode}", f"--name={name}", "--runs=2", *folders)
    script.main()
    assert [(config.seed, config.data_set, config.model) for config in configs] == [
        (0, "cifar10", "resnet20"),
        (1, "cifar10", "resnet20"),
    ]
    assert drawn[0][-1] == tuple("abcdefghij")
    written = strict((tmp_path / "out_dir" / f"{name}_{mode}.json").read_text())
    assert len(written["records"]) == 2
    assert written["tflite"]["agreement"] == 1 and written["tflite"]["largest_difference"] < 1e-4
    stored = (tmp_path / "model_dir" / f"{name}_{mode}.scc").stat().st_size
    assert written["comparison"]["after"]["footprint"]["stored_bytes"] == stored
    assert 0 <= written["comparison"]["after"]["ood"]["scores"]["energy"]["auroc"] <= 1
    assert (tmp_path / "out_dir" / f"{name}_{mode}_comparison.png").exists()
    assert (tmp_path / "model_dir" / f"{name}_{mode}.tflite").stat().st_size == written["tflite"]["bytes"]
    card = strict((tmp_path / "model_dir" / f"{name}_{mode}.json").read_text())
    assert card["stored_bytes"] == stored and card["test_accuracy"] == 0.99
    assert f"{name}_{mode}" in capsys.readouterr().out
