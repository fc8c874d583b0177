"""An interrupted fit is the same fit: weights, histories and what they lead to, bit for bit."""

import random

import h5py
import keras
import numpy as np
import pytest
import toy_problem as toy
from scripted_fit import AtStep, kill

import scc_tf
from scc_tf.callbacks import BackupAndRestore, ChannelRemoval, KernelRestoration, SafetyMonitor, SizeLogger, TargetSize
from scc_tf.callbacks.backup_and_restore import _read, _write

STEPS = 4  # of an epoch
EPOCHS = 6


class Killed(Exception):
    pass


def die(*arguments):
    raise Killed


def net():
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8,)),
        keras.layers.Dense(12, activation="relu", name="hidden"),
        keras.layers.Dropout(0.1),
        keras.layers.Dense(8, activation="relu", use_bias=False, name="second"),
        keras.layers.BatchNormalization(epsilon=1e-5),
        keras.layers.Dense(toy.CLASSES, name="head"),
    ]
    return keras.Sequential(layers)


def some_bytes(model):
    return float(scc_tf.size_report(model, stored=False).integer_bytes)


class Run:
    """Channels die, are cut or restored, gamma is steered, and the last state is not safe."""

    def __init__(self, folder, seed=None):
        self.folder, self.model = folder, scc_tf.self_compress(net())
        self.model.compile(keras.optimizers.SGD(0.05, momentum=0.9), toy.cross_entropy(), gamma=0.05, run_eagerly=True)
        monitor = SafetyMonitor(toy.safety_set(), every=3, statistics_images=toy.points()[0], reference_accuracy=0.9)
        monitor.safety_accuracy = lambda: 0.2 if monitor.step == 6 or monitor.step > 20 else 0.9
        self.kept = [
            SizeLogger(5),
            monitor,
            TargetSize(600, every=2, approach=6, measure=some_bytes),
            KernelRestoration(monitor, 0.2),
            ChannelRemoval(every=3, min_share=0.0),
        ]
        ours = [*self.kept, BackupAndRestore(folder / "all")]
        if seed is not None:
            random.Random(seed).shuffle(ours)
        self.callbacks = [AtStep(5, kill([1, 5, 7])), AtStep(14, kill([2], "second")), *ours]

    def fit(self, *more):
        x, y = toy.points()
        callbacks = [*self.callbacks, *more]
        self.model.fit(x, y, batch_size=12, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks)
        return self

    def fit_until(self, step):
        with pytest.raises(Killed):
            self.fit(AtStep(step, die))

    def seen(self):
        """What the callbacks know in the end, but for times."""
        *_, target, restoration, removal = self.kept
        histories = [entry for callback in self.kept if hasattr(callback, "history") for entry in callback.history]
        return {
            "histories": [{k: v for k, v in entry.items() if k != "step_ms"} for entry in histories],
            "events": restoration.events,
            "safe": (restoration.safe_step, restoration.reverted, target.outcome),
            "reports": removal.reports,
            "cuts": self.model.cuts,
        }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    run = Run(tmp_path_factory.mktemp("whole")).fit()
    assert run.kept[3].events and run.kept[3].reverted and run.kept[4].reports
    return run


def assert_same(run, whole):
    assert run.seen() == whole.seen()
    toy.assert_same(run.model.get_weights(), whole.model.get_weights())
    assert [path for path in run.folder.rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("steps", [[5], [13, 17, 21]], ids=str)
def test_an_interrupted_fit_is_the_same_fit(tmp_path, whole, steps):
    for step in steps:
        Run(tmp_path, seed=step).fit_until(step)
    assert_same(Run(tmp_path).fit(), whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_of_the_list_is_the_programs_business(tmp_path, whole, seed):
    assert_same(Run(tmp_path, seed).fit(), whole)


def test_a_kill_while_the_state_is_written_costs_one_epoch(tmp_path, monkeypatch, whole):
    save = keras.Model.save_weights

    def half(self, path, *arguments, **options):
        save(self, path, *arguments, **options)
        if int(self.optimizer.iterations) == 4 * STEPS:
            path.rename(path.with_name(".123-partial-epoch-4.weights.h5"))  # no exception cleans up after a kill
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keras.Model, "save_weights", half)
        Run(tmp_path).fit()
    again = Run(tmp_path)
    assert again.callbacks[-1].finished_epochs == 3
    assert_same(again.fit(), whole)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_where_the_newest_is_damaged_the_one_before_is_taken_whole(tmp_path, whole, damage):
    Run(tmp_path).fit_until(3 * STEPS + 1)
    names = sorted(path.name for path in tmp_path.rglob("*.h5"))
    assert names == ["epoch-2.weights.h5", "epoch-3.weights.h5"]
    newest = tmp_path / "all" / names[-1]
    content = newest.read_bytes()
    half = len(content) // 2
    newest.write_bytes(content[:half] + {"truncated": b"", "flipped": b"\xff" * 9 + content[half + 9 :]}[damage])
    assert_same(Run(tmp_path).fit(), whole)


def test_states_come_back_as_they_were(tmp_path):
    arrays = [np.arange(6, dtype=np.int8).reshape(2, 3), np.array(1.5, "bfloat16"), np.zeros((0, 2)), np.array([True])]
    h5py.File(path := tmp_path / "state.h5", "w").close()
    _write(path, {"a": {"b": [arrays, None, "text"]}, "c": float("nan"), "d": (1, 0.1)})
    back = _read(path)
    for array, same in zip(arrays, back["a"]["b"][0], strict=True):
        np.testing.assert_array_equal(array, same, strict=True)
    assert back["a"]["b"][1:] == [None, "text"] and np.isnan(back["c"]) and back["d"] == [1, 0.1]


def plain(**settings):
    keras.utils.set_random_seed(0)
    model = net()
    model.compile("adam", toy.cross_entropy(), jit_compile=False, run_eagerly=True, **settings)
    return model


def fit_plain(model, *callbacks, epochs=3):
    x, y = toy.points()
    model.fit(x, y, batch_size=24, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return model


def test_a_plain_model_goes_on_too_with_its_random_state(tmp_path):
    expected = fit_plain(plain()).get_weights()
    with pytest.raises(Killed):
        fit_plain(plain(), BackupAndRestore(tmp_path), AtStep(3, die))
    model = fit_plain(plain(), backup := BackupAndRestore(tmp_path, keep=True))
    toy.assert_same(model.get_weights(), expected)
    assert backup.finished_epochs == 3
    again = fit_plain(plain(), BackupAndRestore(tmp_path, keep=True))  # nothing is left to train
    toy.assert_same(again.get_weights(), expected)
    backup.forget()
    assert list(tmp_path.iterdir()) == []


def test_the_next_fit_begins_at_its_own_first_epoch(tmp_path):
    with pytest.raises(Killed):
        fit_plain(model := plain(), BackupAndRestore(tmp_path), AtStep(3, die))
    fit_plain(model, BackupAndRestore(tmp_path), epochs=2)
    assert int(model.optimizer.iterations) == 4
    fit_plain(model, BackupAndRestore(tmp_path), epochs=2)
    assert int(model.optimizer.iterations) == 8


def test_a_fit_that_was_stopped_early_goes_no_further(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    fit_plain(plain(), Stop(), BackupAndRestore(tmp_path, keep=True))
    assert int(fit_plain(plain(), BackupAndRestore(tmp_path)).optimizer.iterations) == 2


def test_weights_of_another_model_are_refused(tmp_path):
    fit_plain(plain(), BackupAndRestore(tmp_path, keep=True), epochs=1)
    other = toy.dense_net()
    other.compile("adam", toy.cross_entropy(), run_eagerly=True)
    with pytest.raises(ValueError, match="head"):
        fit_plain(other, BackupAndRestore(tmp_path))


def test_callbacks_that_do_not_know_of_each_other_are_refused(tmp_path):
    callbacks = keras.callbacks.CallbackList([BackupAndRestore(tmp_path)], model=plain())
    with pytest.raises(ValueError, match="among the callbacks of fit"):
        callbacks.on_train_begin()


@pytest.mark.parametrize("folder", [None, "", 3, __file__])
def test_what_cannot_be_a_folder_is_refused(folder):
    with pytest.raises(ValueError, match=r"Expected backup_dir to be .* Received: backup_dir="):
        BackupAndRestore(folder)
