"""Callbacks in any order: what is called when."""

import logging

import keras
import pytest
import toy_problem as toy

from scc_tf.callbacks import (
    BackupAndRestore,
    GammaScheduler,
    KernelRestoration,
    RaiseOnNaN,
    SafetyMonitor,
    SizeLogger,
)
from scc_tf.training.callback_order import in_order


class Theirs(keras.callbacks.Callback):
    """Reads a value of ours from the logs."""

    def __init__(self, name="nominal_bytes"):
        super().__init__()
        self.name, self.seen = name, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(logs[self.name])


def kinds(callbacks):
    return [type(c).__name__ for c in callbacks if type(c).__name__ != "_LogsFirst"]


ORDERED = ["RaiseOnNaN", "Theirs", "SizeLogger", "SafetyMonitor", "KernelRestoration", "EarlyStopping"]


def callbacks(folder):
    monitor = SafetyMonitor(toy.safety_set())
    stopping = keras.callbacks.EarlyStopping("nominal_bytes")
    return Theirs(), SizeLogger(), monitor, KernelRestoration(monitor), RaiseOnNaN(), BackupAndRestore(folder), stopping


@pytest.mark.parametrize("listed", ["as is", "nested", "CallbackList"])
def test_ours_stand_together_and_others_stay_where_they_are(tmp_path, listed):
    theirs, sizes, monitor, restoration, nan, backup, stopping = callbacks(tmp_path)
    given = [theirs, restoration, backup, sizes, stopping, nan]  # and no monitor
    model = toy.compressed()
    if listed == "nested":
        given = [given[:2], tuple(given[2:])]
    if listed == "CallbackList":
        given = keras.callbacks.CallbackList(given, model=model, epochs=1)
    ordered = in_order(given, model)
    assert kinds(getattr(ordered, "callbacks", ordered)) == [*ORDERED, "BackupAndRestore"]
    if listed == "CallbackList":
        assert ordered is given and monitor.model is model and monitor.params is given.params


def test_a_list_without_ours_is_left_alone():
    given = [Theirs(), keras.callbacks.History()]
    assert in_order(given, None) is given
    assert in_order(None, None) is None


@pytest.mark.slow
def test_who_reads_the_logs_may_stand_first_and_a_monitor_need_not_be_listed(tmp_path):
    model = toy.compressed()
    monitor = SafetyMonitor(toy.safety_set(), every=2)
    readers = [Theirs(name) for name in ("nominal_bytes", "gamma", "restored_channels", "safety_accuracy")]
    stopping = keras.callbacks.EarlyStopping("nominal_bytes", mode="min", patience=5)
    sizes = SizeLogger(1)
    restoration = KernelRestoration(monitor, 1.0)
    listed = [*readers, stopping, restoration, GammaScheduler(lambda step: 0.5 * step), sizes]
    model.fit(*toy.points(), batch_size=16, epochs=2, verbose=0, callbacks=listed)
    assert readers[0].seen == [sizes.history[step]["nominal_bytes"] for step in (3, 6)]
    assert readers[1].seen == [1.0, 2.5]
    assert stopping.best == min(readers[0].seen)
    assert [check["step"] for check in monitor.history] == [0, 2, 4, 6]


@pytest.mark.slow
def test_keras_own_backup_comes_first_and_what_it_does_not_keep_is_told(tmp_path, caplog):
    model, theirs = toy.compressed(), keras.callbacks.BackupAndRestore(tmp_path)
    monitor = SafetyMonitor(toy.safety_set(), every=2)
    model.fit(*toy.points(), batch_size=16, verbose=0, callbacks=[monitor, theirs])
    (said,) = [r.getMessage() for r in caplog.records if "keeps the weights alone" in r.getMessage()]
    assert "SafetyMonitor would begin anew" in said and "scc_tf.callbacks.BackupAndRestore" in said
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        assert kinds(in_order([GammaScheduler(float), theirs], model)) == ["BackupAndRestore", "GammaScheduler"]
    assert caplog.text == ""


# on_fit_end -----------------------------------------------------------------------------------------------------------


class Ending(keras.callbacks.Callback):
    """Notes which of the two hooks at the end was called."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def on_train_end(self, logs=None):
        self.calls.append(f"{self.name} train")

    def on_fit_end(self):
        assert self.model.in_fit
        self.calls.append(f"{self.name} fit")


IN_FIT = {
    "list": lambda callbacks, model: {"callbacks": callbacks},
    "tuple": lambda callbacks, model: {"callbacks": tuple(callbacks)},
    "nested": lambda callbacks, model: {"callbacks": [callbacks[:1], [callbacks[1:]]]},
    "CallbackList": lambda callbacks, model: {"callbacks": keras.callbacks.CallbackList(callbacks, True, model=model)},
}


@pytest.mark.slow
@pytest.mark.parametrize("how", IN_FIT)
def test_on_fit_end_comes_after_every_on_train_end_and_the_last_callback_is_first(how):
    calls, model = [], toy.compressed()
    callbacks = [Ending("first", calls), keras.callbacks.Callback(), Ending("second", calls)]
    model.fit(*toy.points(), verbose=0, **IN_FIT[how](callbacks, model))
    assert calls == ["first train", "second train", "second fit", "first fit"]
    assert not model.in_fit


@pytest.mark.slow
def test_a_single_callback_and_callbacks_by_position():
    calls, model = [], toy.compressed()
    history = model.fit(*toy.points(), 48, 2, 0, Ending("only", calls))
    assert calls == ["only train", "only fit"]
    assert len(history.history["loss"]) == 2


@pytest.mark.slow
def test_a_fit_that_raises_has_no_end():
    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    calls, model = [], toy.compressed()
    with pytest.raises(Stop):
        model.fit(
            *toy.points(), verbose=0, callbacks=[Ending("a", calls), keras.callbacks.LambdaCallback(on_epoch_end=stop)]
        )
    assert calls == []
    assert not model.in_fit
