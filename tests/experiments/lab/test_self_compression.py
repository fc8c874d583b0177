import dataclasses
import json
import math
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from lab import datasets, models
from lab.self_compression import (
    Config,
    compress,
    float_model,
    restored_channels,
    run,
    stages,
)
from lab.self_compression.callbacks import Callbacks
from lab.stage import fingerprint

import scc_tf
from scc_tf import finish
from scc_tf.callbacks import RaiseOnNaN

CONFIG = Config(
    mode="compare", float_epochs=1, epochs=2, batch_size=50, safety_size=20, safety_batch_size=4, check_every=3
)
STEPS = 300 // 50  # per epoch


def patterns(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = np.random.default_rng(99).random((10, 28, 28, 1))[labels] * rng.uniform(0.5, 1, (count, 1, 1, 1))
    return datasets.Split(images.astype(np.float32), labels.astype(np.int64))


def small_data(name, data_dir=None):
    return datasets.Dataset(name, patterns(300, 0), patterns(40, 1), patterns(40, 2), tuple("0123456789"))


def small_net(seed=None):
    initial = keras.initializers.GlorotUniform(seed)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(4, 5, 3, activation="relu", use_bias=False, name="conv", kernel_initializer=initial),
            keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="head", kernel_initializer=initial),
        ]
    )


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", small_data)
        patch.setattr(models, "mnist_cnn", small_net)
        yield


@pytest.fixture(scope="module")
def done(work_dir, _small):
    return run(CONFIG, work_dir, verbose=0)


@pytest.fixture
def work_copy(done, work_dir, tmp_path):
    """A copy of the work folder with every stage of ``CONFIG`` in it."""
    return Path(shutil.copytree(work_dir, tmp_path / "work"))


@pytest.fixture
def no_training(monkeypatch):
    def fail(*arguments, **keywords):
        pytest.fail("a cached stage was trained again")

    monkeypatch.setattr(keras.Model, "fit", fail)
    monkeypatch.setattr(stages, "select_safety_set", fail)


# run -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_record_is_json_with_one_row_per_network(done):
    record, safety_set, compressed = done
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert list(record["rows"]) == ["float", "unsafe", "safe"]
    assert list(compressed) == ["unsafe", "safe"]
    assert record["config"]["gamma"] == CONFIG.gamma
    assert set(record["config"]) == {f.name for f in dataclasses.fields(Config)} - {"data_dir", "float_file"}
    assert len(safety_set) == 20
    for row in record["rows"].values():
        assert all(0 <= row[name] <= 1 for name in ("test_accuracy", "validation_accuracy", "safety_accuracy"))
        assert row["seconds"] > 0


@pytest.mark.slow
def test_the_safety_set_comes_from_the_training_images(done):
    _, safety_set, _ = done
    train = small_data("mnist").train
    np.testing.assert_array_equal(safety_set.images, train.images[safety_set.indices])
    np.testing.assert_array_equal(safety_set.labels, train.labels[safety_set.indices])


@pytest.mark.parametrize("row", ["unsafe", "safe"])
@pytest.mark.slow
def test_a_row_describes_its_model(done, row):
    record, _, compressed = done
    values, model = record["rows"][row], compressed[row]
    test = small_data("mnist").test
    answers = model.predict(test.images, verbose=0).argmax(1)
    assert values["test_accuracy"] == pytest.approx((answers == test.labels).mean())
    report = scc_tf.size_report(model)
    assert values["size"]["integer_bytes"] == report.integer_bytes
    assert values["size"]["stored_bytes"] == report.stored_bytes
    assert values["size"]["kernels"][0]["layer"] == "conv"
    assert values["dead_channels"] == 14 - sum(len(np.asarray(layer.bit_depth)) for layer in model.layers[1::3])
    assert values["network"][0]["channels"] == 14
    assert values["network"][-1]["step_ms"] > 0
    assert set(values["bit_depths"]) == {"conv/kernel", "head/kernel"}
    assert set(values["bit_depths_before"]["conv/kernel"]) == {CONFIG.bit_depth}
    live = np.asarray(model.get_layer("conv").bit_depth)
    np.testing.assert_allclose(values["bit_depths"]["conv/kernel"][: len(live)], live, atol=1e-4)
    assert values["bit_depths"]["conv/kernel"][len(live) :] == [0.0] * (4 - len(live))
    counts = values["code_counts"]["head/kernel"]
    assert sum(number for _, number in counts) == math.prod(model.get_layer("head").kernel.shape)
    steps = [entry["step"] for entry in values["history"]]
    assert steps[:5] == [0, 3, 6, 9, 12]
    assert {"safety_accuracy", "safety_drop", "integer_bytes", "entropy_bytes"} <= set(values["history"][0])
    assert values["history"][0]["integer_bytes"] == values["start_integer_bytes"]


@pytest.mark.slow
def test_the_finished_network_is_small_and_needs_few_bits_beside_its_codes():
    model = scc_tf.self_compress(small_net(0), 4)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.get_layer("conv").bit_depth.assign([4, 0, 4, 4])
    images = small_data("mnist").train.images
    finished = finish(model, images, exponent_places=2)
    assert finished.get_layer("conv").filters == 3
    assert model.get_layer("conv").filters == 4
    exponents = np.asarray(finished.get_layer("head").exponent)
    np.testing.assert_array_equal(4 * exponents, np.round(4 * exponents))
    mean = np.asarray(finished.get_layer("norm").moving_mean)
    np.testing.assert_array_equal(mean, mean.astype(np.float16))
    features = keras.Model(finished.input, finished.get_layer("conv").output)
    np.testing.assert_allclose(mean, features.predict(images, verbose=0).mean((0, 1, 2)), rtol=2e-3)


@pytest.mark.slow
def test_only_the_safe_row_has_the_safety_machinery(done):
    _, _, compressed = done
    assert (compressed["unsafe"].lambda_safety, compressed["safe"].lambda_safety) == (0.0, CONFIG.lambda_safety)


@pytest.mark.slow
def test_the_safe_row_keeps_its_contract(done):
    row = done[0]["rows"]["safe"]
    best = max(entry["safety_accuracy"] for entry in row["history"])
    assert row["safety_accuracy"] >= best - CONFIG.threshold_points / 100 - 1e-9


@pytest.mark.slow
def test_a_second_run_does_not_train(done, work_dir, no_training):
    record, safety_set, compressed = run(CONFIG, work_dir, verbose=0)
    assert record["rows"] == done[0]["rows"]
    np.testing.assert_array_equal(safety_set.indices, done[1].indices)
    for row, model in compressed.items():
        for again, first in zip(model.get_weights(), done[2][row].get_weights(), strict=True):
            np.testing.assert_array_equal(again, first)


@pytest.mark.slow
def test_the_mode_is_no_part_of_a_stage(done, work_dir, no_training):
    record, _, _ = run(dataclasses.replace(CONFIG, mode="safe"), work_dir, verbose=0)
    assert record["rows"] == {name: done[0]["rows"][name] for name in ("float", "safe")}


@pytest.mark.slow
def test_nothing_but_the_results_is_left_in_the_work_folder(done, work_dir):
    left = {path.name for path in work_dir.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("safety-")} == {"model.weights.h5", "record.json"}


@pytest.mark.slow
def test_an_interrupted_compression_goes_on_from_its_last_epoch(done, work_copy, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, gamma=0.02, ramp=0.5)
    data, trained = small_data("mnist"), []
    model, float_record = float_model(config, data, work_copy, verbose=0)
    assert float_record["seconds"] == done[0]["rows"]["float"]["seconds"]  # its stage does not depend on gamma

    def compress_until(last_step, work_dir=work_copy):
        def on_train_batch_end(self, batch, logs=None):
            trained.append(int(self.model.optimizer.iterations))
            if trained[-1] == last_step:
                raise KeyboardInterrupt

        monkeypatch.setattr(RaiseOnNaN, "on_train_batch_end", on_train_batch_end)
        return compress(config, "unsafe", model, done[1], data, work_dir, verbose=0)

    with pytest.raises(KeyboardInterrupt):
        compress_until(10)
    assert trained == list(range(1, 11))
    trained.clear()
    compressed, row = compress_until(None)
    assert trained == list(range(STEPS + 1, 2 * STEPS + 1))
    assert [entry["step"] for entry in row["history"]][:5] == [0, 3, 6, 9, 12]
    assert int(compressed.format_optimizer.iterations) == 2 * STEPS
    assert float(compressed.gamma) == pytest.approx(0.02)
    assert [path for path in work_copy.rglob("backup/**/*") if path.is_file()] == []
    uninterrupted, same_row = compress_until(None, tmp_path / "other")
    assert row["history"] == same_row["history"]
    for one, other in zip(compressed.get_weights(), uninterrupted.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # so it saw the batches that come after


@pytest.mark.slow
def test_a_stop_after_the_training_costs_none_of_it(done, work_copy, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, epochs=4, cut_share=0.0, check_every=2, threshold_points=100.0, gamma=3.0)
    data, steps = small_data("mnist"), []
    model, _ = float_model(config, data, work_copy, verbose=0)
    conv = model.get_layer("conv")
    conv.kernel.assign(np.asarray(conv.kernel) * [1, 0, 1, 1])  # where codes are counted, this one is dead
    monkeypatch.setattr(RaiseOnNaN, "on_train_batch_end", lambda self, batch, logs=None: steps.append(batch))

    def compress_in(folder):
        return compress(config, "safe", model, done[1], data, folder, verbose=0)

    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stages, "finish", stopped)
        compress_in(work_copy)
    compressed, row = compress_in(work_copy)
    assert len(steps) == 4 * STEPS
    looks = [look["channels"] for look in row["network"]]
    assert looks[-1] < looks[0]  # it was cut while it trained
    uninterrupted, same_row = compress_in(tmp_path / "other")
    timed = ("seconds", "network")
    assert {k: v for k, v in row.items() if k not in timed} == {k: v for k, v in same_row.items() if k not in timed}
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    for one, other in zip(compressed.get_weights(), uninterrupted.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    left = {path.name for path in (work_copy / f"safe-{config.row_key('safe')}").rglob("*")}
    assert left == {"model.weights.h5", "record.json"}


@pytest.mark.parametrize(
    "pattern",
    ["float-*/record.json", "float-*/model.*", "safety-*.npz", "unsafe-*/record.json", "unsafe-*/model.*"],
)
@pytest.mark.slow
def test_a_damaged_file_of_a_finished_stage_is_named(work_copy, no_training, pattern):
    (path,) = work_copy.glob(pattern)
    for content in (b"", b"{", path.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path}, which is damaged; delete it and run again"):
            run(CONFIG, work_copy, verbose=0)


@pytest.mark.parametrize("name", ["record.json", "model.weights.h5"])
@pytest.mark.slow
def test_a_stage_that_lost_a_file_is_trained_again(work_copy, name):
    (lost,) = work_copy.glob(f"float-*/{name}")
    lost.unlink()
    float_model(CONFIG, small_data("mnist"), work_copy, verbose=0)
    assert lost.exists()


# another network ------------------------------------------------------------------------------------------------------


def save_functional(seed, path):
    net = small_net(seed)
    keras.Model(net.inputs[0], net.outputs[0], name="float").save(path)


@pytest.fixture
def float_file(tmp_path):
    save_functional(5, path := tmp_path / "float.keras")
    return path


@pytest.mark.slow
def test_a_float_network_from_a_file_is_taken_as_it_is(done, float_file, tmp_path):
    config = dataclasses.replace(
        CONFIG, mode="unsafe", epochs=1, mirror=True, model="lenet_5", float_file=str(float_file)
    )
    record, _, _ = run(config, tmp_path / "work", verbose=0)
    row = record["rows"]["float"]
    answers = keras.models.load_model(float_file).predict(small_data("mnist").test.images, verbose=0).argmax(axis=1)
    assert row["test_accuracy"] == pytest.approx(np.mean(answers == small_data("mnist").test.labels))
    assert "seconds" not in row and "float_file" not in record["config"]
    assert (record["config"]["model"], record["config"]["mirror"]) == ("lenet_5", True)
    float_file.rename(moved := float_file.with_name("moved.keras"))
    model, again = float_model(
        dataclasses.replace(config, float_file=str(moved)), small_data("mnist"), tmp_path / "work"
    )
    assert (row["file"], again["file"]) == ("float.keras", "moved.keras")
    assert row["weights"] == again["weights"] == fingerprint(model)
    names = ("validation_accuracy", "test_accuracy")
    assert {name: again[name] for name in names} == {name: row[name] for name in names}
    np.testing.assert_array_equal(model.get_weights()[0], small_net(seed=5).get_weights()[0])


@pytest.mark.slow
def test_another_content_of_the_file_is_another_stage(float_file):
    config = Config(float_file=str(float_file))
    keys = [config.float_key, config.safety_key, config.row_key("safe")]
    assert dataclasses.replace(config, float_epochs=9).float_key == keys[0] != Config().float_key
    save_functional(6, float_file)
    assert not {config.float_key, config.safety_key, config.row_key("safe")} & set(keys)


@pytest.mark.slow
def test_when_a_network_was_saved_is_no_part_of_its_stages(float_file):
    config = Config(float_file=str(float_file))
    key, before = config.float_key, float_file.read_bytes()
    keras.models.load_model(float_file).save(float_file)
    assert float_file.read_bytes() != before and config.float_key == key


@pytest.mark.slow
def test_a_file_that_is_no_network_for_the_data_is_named(tmp_path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(path := tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"from \(28, 28, 1\) to 10 classes in float_file. Received: .*other.keras"):
        float_model(Config(float_file=str(path)), small_data("mnist"), tmp_path / "work")
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"other\.keras, which is damaged"):
        float_model(Config(float_file=str(path)), small_data("mnist"), tmp_path / "work")


@pytest.mark.slow
def test_data_set_and_network_are_settings(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(datasets, "load", lambda name, data_dir=None: asked.append(name) or small_data(name))
    monkeypatch.setattr(models, "lenet_5", lambda seed: asked.append("lenet_5") or small_net(seed))
    config = dataclasses.replace(CONFIG, mode="unsafe", epochs=1, data_set="digits", model="lenet_5")
    run(config, tmp_path, verbose=0)
    assert asked == ["digits", "lenet_5"]


# target_bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_target_is_met_and_told_also_after_a_stop(done, work_copy, monkeypatch):
    config = dataclasses.replace(CONFIG, mode="safe", size_model="entropy", target_bytes=1200, epochs=4, gamma=0.1)
    steps = []
    monkeypatch.setattr(RaiseOnNaN, "on_train_batch_end", lambda self, batch, logs=None: steps.append(batch))

    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stages, "finish_to_bytes", stopped)
        run(config, work_copy, verbose=0)
    record, _, compressed = run(config, work_copy, verbose=0)
    assert len(steps) == 4 * STEPS
    row, model = record["rows"]["safe"], compressed["safe"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    target = row["target"]
    assert target["stored_bytes"] == row["size"]["stored_bytes"] == scc_tf.size_report(model).stored_bytes
    assert target["reached"] == (0.98 * 1200 <= target["stored_bytes"] <= 1200)
    assert target["error_percent"] == pytest.approx(100 * (target["stored_bytes"] / 1200 - 1))
    assert row["safe"] and row["safety_drop_points"] <= CONFIG.threshold_points + 1e-6
    assert "off the target of 1,200 B" in target["outcome"]
    assert [entry["step"] for entry in target["history"]][:3] == [0, 3, 6]
    assert target["history"][-1]["gamma"] > 0.1
    head = model.get_layer("head")
    assert head.bias_exponent is not None  # of the settings, or coarser or finer as the size asks
    assert len(set(np.asarray(head.exponent))) == 1
    assert "target" not in done[0]["rows"]["safe"]


@pytest.mark.parametrize(("target_bytes", "checks"), [(0, 1), (1200, 5)])
def test_a_size_that_is_asked_for_is_not_given_up_for_a_single_check(target_bytes, checks):
    config = dataclasses.replace(CONFIG, size_model="entropy", target_bytes=target_bytes)
    watch = Callbacks(config, True, patterns(20, 0), patterns(20, 1).images, steps=12)
    assert watch.restoration.patience == checks


def test_restored_channels_are_those_of_all_events():
    assert (
        restored_channels({"events": [{"restored": {"a": 2, "b": 1}}, {"restored": {}}, {"restored": {"a": 4}}]}) == 7
    )
    assert restored_channels({"test_accuracy": 0.9}) == 0


# Config --------------------------------------------------------------------------------------------------------------
