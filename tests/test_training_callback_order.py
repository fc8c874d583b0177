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
