import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from lab import datasets
from lab.batches import training_batches
from lab.stage import Clock, Stage

from scc_tf.callbacks import RaiseOnNaN


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path / "training-1", backup="backup/keras")


def net():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_a_stage_is_finished_once_it_is_saved(stage):
    model, other = net(), net()
    assert not stage.is_finished
    stage.save(model, {"seconds": 1.5})
    assert stage.is_finished
    assert stage.load(other) == {"seconds": 1.5}
    for one, same in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_the_clock_counts_all_sessions_but_no_lost_epoch(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    first = Clock()
    now[0] += 10
    kept = first.state()
    now[0] += 4  # an epoch that is interrupted
    second = Clock()
    second.restore(kept)
    now[0] += 20
    assert second.seconds == 30
    assert Clock().seconds == 0


@pytest.mark.parametrize("again", [False, True])
def test_nothing_but_the_results_is_left(stage, tmp_path, again):
    (folder := tmp_path / "training-1" / "backup" / "keras").mkdir(parents=True)
    (folder / "epoch-1.weights.h5").touch()
    stage.save(net(), {})
    if again:  # stopped just before it had removed the backup
        folder.mkdir()
        (folder / "epoch-1.weights.h5").touch()
        (tmp_path / "training-1" / ".123-partial-record.json").touch()
        stage.load(net())
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["model.weights.h5", "record.json"]


@pytest.fixture
def numbers():
    """Data of three batches, and how to compile for them; no XLA."""
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    return x, x[:, :2] - x[:, 1:]


def compiled(weights=None):
    model = net()
    model.compile("adam", "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    if weights is not None:
        model.set_weights(weights)
    return model


class Watch(keras.callbacks.Callback):
    """Notes the epochs and the steps, and stops where it is told to."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.epochs, self.steps, self.stop_at = [], [], stop_at

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(int(self.model.optimizer.iterations))
        if self.steps[-1] == self.stop_at:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_from_its_last_epoch(stage, tmp_path, numbers, monkeypatch):
    start, elapsed = net().get_weights(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + elapsed[0])

    def fit(stage, watch):
        batches, steps = training_batches(datasets.Split(*numbers), 4, 0, skip_epochs=stage.finished_epochs)
        model = compiled(start)
        return model, stage.fit(model, (batches, steps), 3, [watch], verbose=0)

    first, second, whole = Watch(stop_at=5), Watch(), Watch()
    first.on_epoch_begin = lambda epoch, logs=None: elapsed.__setitem__(0, 1000.0)
    with pytest.raises(KeyboardInterrupt):
        fit(stage, first)
    assert (stage.finished_epochs, first.steps) == (1, [1, 2, 3, 4, 5])
    elapsed[0] = 0.0
    model, taken = fit(stage, second)
    assert (second.epochs, second.steps) == ([1, 2], [4, 5, 6, 7, 8, 9])
    assert 1000 < taken < 1100
    assert stage.finished_epochs == 3  # until it is saved
    other, taken = fit(Stage(tmp_path / "other", backup="backup"), whole)
    assert whole.epochs == [0, 1, 2]
    assert 0 < taken < 1000
    for one, same in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-900])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [Path.unlink, cut_short])
@pytest.mark.parametrize(("damaged", "finished"), [([], 2), ([2], 1), ([1], 2), ([1, 2], 0)])
def test_weights_epochs_and_batches_agree_whatever_is_lost(stage, tmp_path, numbers, damage, damaged, finished):
    start = net().get_weights()

    def fit(stage, watch):
        batches = training_batches(datasets.Split(*numbers), 4, 0, skip_epochs=stage.finished_epochs)
        stage.fit(model := compiled(start), batches, 4, [watch], verbose=0)
        return model

    with pytest.raises(KeyboardInterrupt):
        fit(stage, Watch(stop_at=8))
    names = [f"epoch-{epoch}.weights.h5" for epoch in (1, 2)]
    assert sorted(path.name for path in tmp_path.rglob("epoch-*")) == names
    for epoch in damaged:
        damage(next(tmp_path.rglob(names[epoch - 1])))
    model = fit(stage, second := Watch())
    assert (second.epochs, second.steps[0]) == (list(range(finished, 4)), 3 * finished + 1)
    other = fit(Stage(tmp_path / "other", backup="backup"), Watch())
    for one, same in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


@pytest.mark.slow
def test_a_backup_that_is_damaged_inside_is_passed_over(stage, tmp_path, numbers, caplog):
    def fit(watch):
        batches = training_batches(datasets.Split(*numbers), 4, 0, skip_epochs=stage.finished_epochs)
        stage.fit(compiled(), batches, 4, [watch], verbose=0)

    with pytest.raises(KeyboardInterrupt):
        fit(Watch(stop_at=8))
    newest = next(tmp_path.rglob("epoch-2.weights.h5"))
    with h5py.File(newest, "a") as file:
        kernel = file["layers/dense/vars/0"]
        kernel[0, 0] += 1e-6
    fit(watch := Watch())
    assert watch.epochs == [1, 2, 3]
    assert "epoch-2.weights.h5 is damaged and was passed over: its checksum is wrong" in caplog.text


@pytest.mark.slow
def test_an_epoch_is_finished_when_the_other_callbacks_have_kept_theirs(stage, numbers):
    class Log(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.fit(compiled(), training_batches(datasets.Split(*numbers), 4, 0), 4, [Log()], verbose=0)
    assert stage.finished_epochs == 1


@pytest.mark.slow
def test_a_backup_that_is_kept_stays_until_the_stage_is_saved(stage, numbers):
    def fit():
        batches = training_batches(datasets.Split(*numbers), 4, 0, skip_epochs=stage.finished_epochs)
        model, watch = compiled(), Watch()
        stage.fit(model, batches, 2, [watch], verbose=0)
        return model, watch.epochs

    model, epochs = fit()
    again, none = fit()
    assert (stage.finished_epochs, epochs, none) == (2, [0, 1], [])
    for one, same in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
    stage.save(model, {})
    assert stage.finished_epochs == 0


@pytest.mark.slow
def test_a_fit_that_diverges_stops(stage, numbers):
    x, y = numbers
    batches = training_batches(datasets.Split(x, y * np.nan), 4, 0)
    with pytest.raises(FloatingPointError, match="loss=nan"):
        stage.fit(compiled(), batches, 2, verbose=0)
    assert not stage.is_finished


@pytest.mark.slow
def test_a_finished_training_is_loaded_with_what_was_said_of_it(stage, numbers, monkeypatch):
    batches = (tf.data.Dataset.from_tensor_slices(numbers).batch(4).repeat(), 3)

    def finish(model):
        model.layers[0].bias.assign([7.0, 8.0])
        return {"error": 1.5}

    first = compiled()
    record = stage.train(first, batches, 2, finish, verbose=0)
    assert record.pop("seconds") > 0
    assert record == {"error": 1.5}
    monkeypatch.setattr(keras.Model, "fit", lambda *arguments, **options: pytest.fail("trained again"))
    second = compiled()
    assert stage.train(second, batches, 2, finish, verbose=0)["error"] == 1.5
    np.testing.assert_array_equal(second.layers[0].bias, [7, 8])
    np.testing.assert_array_equal(second.layers[0].kernel, first.layers[0].kernel)


@pytest.mark.slow
def test_a_stop_after_the_training_costs_none_of_it(stage, numbers, monkeypatch):
    steps = []
    monkeypatch.setattr(RaiseOnNaN, "on_train_batch_end", lambda self, batch, logs=None: steps.append(batch))

    def train(finish):
        model = compiled(start)
        batches = training_batches(datasets.Split(*numbers), 4, 0, skip_epochs=stage.finished_epochs)
        return model, stage.train(model, batches, 2, finish, verbose=0)

    def stopped(model):
        model.layers[0].bias.assign([7.0, 8.0])
        trained.append(model.get_weights()[0])
        raise KeyboardInterrupt

    start, trained = net().get_weights(), []
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    model, record = train(lambda model: {"bias": np.asarray(model.layers[0].bias).tolist()})
    assert len(steps) == 2 * 3
    np.testing.assert_array_equal(model.get_weights()[0], trained[0])
    assert record["bias"] == np.asarray(model.layers[0].bias).tolist() != [7, 8]
