import dataclasses
import json

import keras
import numpy as np
import pytest
from lab import datasets, image_training, models
from lab.image_training import Config, normalization_of, run
from patterns import small_data

from scc_tf.callbacks import BackupAndRestore, RaiseOnNaN

CONFIG = Config(epochs=3, batch_size=20, learning_rate=0.05, average=0.8, shift=1, warp_share=0.5)
STEPS = 120 // 20  # per epoch


def small_net(seed, normalization):
    k, he = keras.layers, keras.initializers.HeNormal(seed)
    image = keras.Input((6, 6, 1), name="image")
    x = k.Rescaling(*normalization, name="normalize")(image)
    x = k.Conv2D(4, 3, use_bias=False, name="conv", kernel_initializer=he)(x)
    x = k.ReLU(name="relu")(k.BatchNormalization(name="norm", momentum=0.9)(x))
    return keras.Model(image, k.Dense(10, name="head", kernel_initializer=he)(k.Flatten(name="flatten")(x)))


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", small_data)
        patch.setattr(models, "resnet20", small_net)
        yield


@pytest.fixture(scope="module")
def done(work_dir, _small):
    return run(CONFIG, work_dir, verbose=0)


@pytest.fixture
def stop(monkeypatch):
    """Interrupts a training after so many steps, and notes the steps."""
    seen = []

    def at(last):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(int(self.model.optimizer.iterations))
            if seen[-1] == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(RaiseOnNaN, "on_train_batch_end", on_train_batch_end)
        return seen

    return at


@pytest.mark.slow
def test_the_record_is_json_and_says_what_happened(done, work_dir):
    record, model = done
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert [row["epoch"] for row in record["epochs"]] == [1, 2, 3]
    for row in record["epochs"]:
        assert 0 <= row["train_accuracy"] <= 1 and 0 <= row["validation_accuracy"] <= 1
        assert row["train_loss"] > 0 and row["validation_loss"] > 0
    rates = [row["learning_rate"] for row in record["epochs"]]
    assert rates[0] > rates[1] > rates[2] == pytest.approx(0, abs=1e-9)
    assert record["parameters"] == 36 + 8 + 640 + 10
    assert set(record["config"]) == {f.name for f in dataclasses.fields(Config)} - {"data_dir"}
    assert list(record["classes"]) == list("0123456789")
    recalls = [row["recall"] for row in record["classes"].values()]
    assert np.mean(recalls) == pytest.approx(record["test_accuracy"])  # four test images per class
    answers = model.predict(small_data().test.images, verbose=0).argmax(axis=1)
    assert record["test_accuracy"] == np.mean(answers == small_data().test.labels)
    assert record["test_accuracy"] > 0.2  # twice what chance gives: 18 steps, half of the images warped
    assert list(work_dir.rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_the_candidate_that_is_best_on_validation_is_kept(done):
    record, model = done
    assert list(record["candidates"]) == ["last", "last, new statistics", "average, new statistics"]
    assert record["candidates"][record["chosen"]] == max(record["candidates"].values())
    validation = small_data().validation
    answers = model.predict(validation.images, verbose=0).argmax(axis=1)
    assert np.mean(answers == validation.labels) == pytest.approx(record["validation_accuracy"])


@pytest.mark.slow
def test_a_second_run_loads_the_network(done, work_dir, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", None)
    record, model = run(CONFIG, work_dir, verbose=0)
    assert record == done[0]
    for again, first in zip(model.get_weights(), done[1].get_weights(), strict=True):
        np.testing.assert_array_equal(again, first)


@pytest.mark.slow
@pytest.mark.parametrize("average", [0.8, 0.0])
def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, stop, average):
    config = dataclasses.replace(CONFIG, average=average)
    steps = stop(STEPS + 2)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "one", verbose=0)
    assert steps == list(range(1, STEPS + 3))
    stop(None)
    record, model = run(config, tmp_path / "one", verbose=0)
    assert steps[STEPS + 2 :] == list(range(STEPS + 1, 3 * STEPS + 1))
    same_record, same = run(config, tmp_path / "other", verbose=0)
    for one, other in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    assert [row["epoch"] for row in record["epochs"]] == [1, 2, 3]
    for row, same_row in zip(record["epochs"], same_record["epochs"], strict=True):
        assert row == pytest.approx(same_row, rel=1e-4, abs=1e-6)
    assert not list(tmp_path.rglob("backup/*"))


@pytest.mark.slow
@pytest.mark.parametrize("keeper", [image_training._EpochLog, BackupAndRestore])
def test_a_stop_while_an_epoch_is_kept_loses_no_row_of_the_log(tmp_path, monkeypatch, keeper):
    keep = keeper.on_epoch_end

    def stopped(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        keep(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(keeper, "on_epoch_end", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(CONFIG, tmp_path, verbose=0)
    record, _ = run(CONFIG, tmp_path, verbose=0)
    assert [row["epoch"] for row in record["epochs"]] == [1, 2, 3]


@pytest.mark.slow
def test_a_stop_between_training_and_record_loses_no_training(tmp_path, monkeypatch, stop):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    steps = stop(None)
    with monkeypatch.context() as patch:
        patch.setattr(image_training, "_score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(CONFIG, tmp_path / "one", verbose=0)
    record, model = run(CONFIG, tmp_path / "one", verbose=0)
    assert len(steps) == 3 * STEPS
    same_record, same = run(CONFIG, tmp_path / "other", verbose=0)
    assert record["candidates"] == pytest.approx(same_record["candidates"])
    for one, other in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_another_schedule_and_a_share_of_the_images(tmp_path):
    config = dataclasses.replace(CONFIG, schedule="multi_step", share=0.5, epochs=2, average=0.0)
    record, _ = run(config, tmp_path, verbose=0)
    rates = [row["learning_rate"] for row in record["epochs"]]
    assert rates == pytest.approx([0.005, 0.0005])  # 6 steps in all: it falls after 3 and 4, and an epoch has 3
    assert list(record["candidates"]) == ["last", "last, new statistics"]


def test_normalized_images_have_mean_0_and_deviation_1():
    images = np.random.default_rng(0).normal([0.2, 0.5, 0.6], [0.1, 0.2, 0.05], (50, 4, 4, 3)).astype(np.float32)
    scale, offset = normalization_of(images)
    normal = images * np.float32(scale) + np.float32(offset)
    np.testing.assert_allclose(normal.mean(axis=(0, 1, 2)), 0, atol=2e-3)
    np.testing.assert_allclose(normal.std(axis=(0, 1, 2)), 1, atol=2e-3)
    assert all(round(value, 3) == value for value in scale + offset)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schedule", "cosine"),
        ("epochs", 0),
        ("batch_size", 0),
        ("seed", -1),
        ("shift", -1),
        ("learning_rate", 0.0),
        ("weight_decay", -1e-4),
        ("momentum", 1.0),
        ("average", 1.0),
        ("scale", 1.0),
        ("jitter", -0.1),
        ("warp_share", 1.1),
        ("share", 0.0),
        ("rotation", 181.0),
        ("shear", 90.0),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Expected {name} .*Received: {name}="):
        Config(**{name: value})


def test_the_key_depends_on_every_setting_but_the_place_of_the_data():
    keys = {Config().key(), Config(data_dir="elsewhere").key()}
    assert len(keys) == 1
    changes = {"jitter": 0.3, "mirror": False, "average": 0.5, "schedule": "multi_step"}
    assert len(keys | {Config(**{name: value}).key() for name, value in changes.items()}) == 5
