import functools

import keras
import numpy as np
import pytest
from lab import models
from lab.lottery import Config
from lab.lottery.early_stopping import ResumableEarlyStopping, Stop
from lab.lottery.full_batch import FullBatch
from lab.lottery.tasks import two_moons
from lab.lottery.training import Trainer
from lab.stage import Stage
from patterns import small_data

from scc_tf.protocols.subnetworks import Weights


@pytest.fixture(autouse=True)
def _no_xla(monkeypatch):
    monkeypatch.setattr(FullBatch, "jit_compile", False)  # the same sooner, see the test that asks for both


@functools.cache
def fitted(config):
    """A network of the moons and where it stopped, by Keras's ``fit`` with its own early stopping."""
    network, data = models.moons_mlp(seed=3), two_moons()
    network.compile(
        keras.optimizers.Adam(config.learning_rate), keras.losses.SparseCategoricalCrossentropy(True), jit_compile=False
    )
    early = keras.callbacks.EarlyStopping(
        "val_loss", patience=config.patience, restore_best_weights=True, start_from_epoch=config.start_from_epoch
    )
    (x, y), validation = data.train, tuple(data.validation)
    options = {"batch_size": len(y), "validation_batch_size": len(y), "verbose": 0, "callbacks": [early]}
    history = network.fit(x, y, epochs=config.epochs, validation_data=validation, shuffle=False, **options).history
    lowest = min(history["val_loss"][config.start_from_epoch :])
    return network, Stop(early.best_epoch + 1, len(history["val_loss"]), lowest)


def assert_same_weights(one, other, **tolerance):
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, **tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "jit_compile"),
    [
        ({"epochs": 40, "patience": 3, "learning_rate": 0.2}, False),
        ({"epochs": 40, "patience": 3, "learning_rate": 0.2}, True),
        ({"epochs": 25, "patience": 2, "start_from_epoch": 12}, False),
    ],
)
def test_the_compiled_loop_is_keras_fit_with_its_early_stopping(settings, jit_compile, monkeypatch):
    monkeypatch.setattr(FullBatch, "jit_compile", jit_compile)
    config, ours = Config(**settings), models.moons_mlp(seed=3)
    stop, (theirs, expected) = FullBatch(config, two_moons()).fit(ours), fitted(config)
    assert stop[:2] == expected[:2]
    assert stop.validation_loss == pytest.approx(expected.validation_loss, rel=1e-4)
    assert_same_weights(ours, theirs, rtol=1e-3, atol=1e-4)
    if "start_from_epoch" not in settings:
        assert stop.best_epoch + 3 == stop.epochs_run < 40  # it did stop early


def validation_loss(network, data):
    logits = network(data.validation.images)
    return float(keras.ops.mean(keras.losses.sparse_categorical_crossentropy(data.validation.labels, logits, True)))


@pytest.mark.slow
def test_the_best_weights_come_back_and_every_training_starts_afresh():
    config, data = Config(epochs=60, patience=4, learning_rate=0.3), two_moons()
    trainer, stops = FullBatch(config, data), []
    for _ in range(2):
        network = models.moons_mlp(seed=1)
        stops.append(trainer.fit(network))
        assert validation_loss(network, data) == pytest.approx(stops[-1].validation_loss, rel=1e-5)
    assert stops[0] == stops[1]
    last = models.moons_mlp(seed=1)
    trainer.fit(last, epochs=stops[0].epochs_run)
    assert validation_loss(last, data) > stops[0].validation_loss  # the last weights are not the best ones


@pytest.mark.slow
def test_masks_hold_in_the_compiled_loop_also_in_the_next_network_of_the_shape():
    data, pruning, model = two_moons(), Weights(), models.moons_mlp(seed=0)
    trainer = FullBatch(Config(epochs=5), data)
    for ratio in (0.5, 0.8):
        kept = pruning.choose(model, pruning.everything(model), ratio)
        network = pruning.cut(model, kept)
        trainer.fit(network)
        for name, mask in kept.items():
            np.testing.assert_array_equal(np.asarray(network.get_layer(name).kernel) != 0, mask)


@pytest.mark.slow
def test_a_training_that_diverges_is_an_error():
    network = models.moons_mlp(seed=0)
    network.get_layer("head").bias.assign([np.nan, np.nan])
    with pytest.raises(FloatingPointError, match="never finite in 3 epochs"):
        FullBatch(Config(epochs=3), two_moons()).fit(network)


# mini-batches --------------------------------------------------------------------------------------------------------

CONFIG = Config(model="cifar_cnn", batch_size=30, epochs=8, patience=2, learning_rate=0.05)


def dense_net():
    initial = keras.initializers.HeNormal(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, kernel_initializer=initial)]
    return keras.Sequential([keras.Input((6, 6, 1)), *layers])


class StopAt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def scripted(monkeypatch, losses):
    """Make ``fit`` see these validation losses."""
    real = ResumableEarlyStopping.get_monitor_value
    monkeypatch.setattr(
        ResumableEarlyStopping, "get_monitor_value", lambda self, logs: real(self, logs) and losses[self._epochs_run]
    )


def interrupted_at(monkeypatch, epoch):
    """Make the next ``fit`` break off at the beginning of an epoch."""
    fit = keras.Model.fit

    def breaking(self, *arguments, callbacks=(), **options):
        return fit(self, *arguments, callbacks=[*callbacks, StopAt(epoch)], **options)

    monkeypatch.setattr(keras.Model, "fit", breaking)
    return lambda: monkeypatch.setattr(keras.Model, "fit", fit)


@pytest.mark.slow
def test_an_interrupted_training_remembers_its_best_weights(tmp_path, monkeypatch):
    scripted(monkeypatch, [1.0, 0.5, 0.7, 0.9, 0.1])
    whole, resumed, data = dense_net(), dense_net(), small_data()
    expected = Trainer(CONFIG, data, None, tmp_path / "whole", 0).train(whole, "it", 0)
    assert (expected["best_epoch"], expected["epochs_run"], expected["validation_loss"]) == (2, 4, 0.5)
    trainer = Trainer(CONFIG, data, None, tmp_path / "parts", 0)
    repair = interrupted_at(monkeypatch, 3)  # the best epoch is past
    with pytest.raises(KeyboardInterrupt):
        trainer.train(dense_net(), "it", 0)
    repair()
    record = trainer.train(resumed, "it", 0)
    assert {**record, "seconds": 0} == {**expected, "seconds": 0}
    assert_same_weights(resumed, whole, rtol=0)
    files = sorted(path.name for path in (tmp_path / "parts" / "it").rglob("*") if path.is_file())
    assert files == ["model.weights.h5", "record.json"]
    again = dense_net()
    monkeypatch.setattr(keras.Model, "fit", lambda *arguments, **options: pytest.fail("trained again"))
    assert trainer.train(again, "it", 0) == record
    assert_same_weights(again, whole, rtol=0)


@pytest.mark.slow
def test_a_training_that_had_stopped_goes_no_further(tmp_path, monkeypatch):
    scripted(monkeypatch, [1.0, 0.5, 0.7, 0.9, 0.1])
    trainer, first, again = Trainer(CONFIG, small_data(), None, tmp_path, 0), dense_net(), dense_net()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Stage, "save", lambda *arguments: StopAt(0).on_epoch_begin(0))
        trainer.train(first, "it", 0)
    record = trainer.train(again, "it", 0)
    assert (record["best_epoch"], record["epochs_run"], record["validation_loss"]) == (2, 4, 0.5)
    assert_same_weights(again, first, rtol=0)


class Watch(keras.callbacks.Callback):
    """Keeps the weights after every step."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(self.model.get_weights())


@pytest.mark.slow
def test_the_first_steps_are_those_of_the_training_and_are_kept(tmp_path, monkeypatch):
    trainer, watch = Trainer(CONFIG, small_data(), None, tmp_path, 0), Watch()
    first, other, again = dense_net(), dense_net(), dense_net()
    assert trainer.train(first, "early", 5, steps=3) == {}
    assert int(first.optimizer.iterations) == 3
    dataset, steps = trainer._batches(5, 0)
    assert steps == trainer.steps_per_epoch
    trainer._compile(other)
    other.fit(dataset, steps_per_epoch=steps, epochs=1, callbacks=[watch], verbose=0, shuffle=False)
    for one, same in zip(first.get_weights(), watch.weights[2], strict=True):
        np.testing.assert_array_equal(one, same)
    monkeypatch.setattr(keras.Model, "fit", lambda *arguments, **options: pytest.fail("trained again"))
    assert trainer.train(again, "early", 5, steps=3) == {}
    assert_same_weights(again, first, rtol=0)


@pytest.mark.slow
def test_the_first_epochs_of_the_compiled_loop_are_those_of_keras(tmp_path):
    data, config = two_moons(), Config()
    ours, theirs, watch = models.moons_mlp(seed=3), models.moons_mlp(seed=3), Watch()
    trainer = Trainer(config, data, None, tmp_path, 0)
    trainer.train(ours, "early", 0, steps=4)
    trainer._compile(theirs)
    x, y = data.train
    theirs.fit(x, y, batch_size=len(y), epochs=6, shuffle=False, verbose=0, callbacks=[watch])
    for one, same in zip(ours.get_weights(), watch.weights[3], strict=True):
        np.testing.assert_allclose(one, same, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_weights_that_were_lost_take_their_measures_with_them(tmp_path):
    trainer = Trainer(CONFIG, small_data(), None, tmp_path, 0)
    network = dense_net()
    trainer.train(network, "it", 0, steps=2)
    trainer.measured(network, "it")
    (tmp_path / "it" / "model.weights.h5").unlink()
    other = dense_net()
    trainer.train(other, "it", 0, steps=4)
    fresh = Trainer(CONFIG, small_data(), None, tmp_path / "fresh", 0)
    fresh.work_dir.joinpath("it").mkdir(parents=True)
    assert trainer.measured(other, "it") == fresh.measured(other, "it")
