import keras
import numpy as np
import pytest
import toy_problem as toy

from scc_tf.callbacks.every_n_steps import EveryNSteps
from scc_tf.callbacks.state_files import pack, unpack


class Counting(EveryNSteps):
    names = ("calls",)
    backup_name = "counting"
    calls = 0

    def at_step(self, step):
        self.calls += 1
        return {"calls": float(self.calls)}


def begin(callback, model):
    callback.set_model(model)
    callback.on_train_begin()


def drive(callback, model, steps, stride=1):
    """What fit does to a callback; returns the logs of each batch."""
    begin(callback, model)
    seen = []
    for _ in range(0, steps, stride):
        model.optimizer.iterations.assign_add(stride)
        seen.append({"loss": 0.0})
        callback.on_train_batch_end(0, seen[-1])
    callback.on_train_end()
    return seen


def steps_of(callback):
    return [entry["step"] for entry in callback.history]


@pytest.mark.slow
@pytest.mark.parametrize(("steps_per_execution", "expected"), [(1, [0, 4, 8, 10]), (3, [0, 6, 9, 10])])
def test_acts_when_a_multiple_was_passed_whatever_the_steps_per_execution(steps_per_execution, expected):
    x, y = toy.points(40)
    model = toy.compressed(run_eagerly=False, jit_compile=False, steps_per_execution=steps_per_execution)
    callback = Counting(4)
    callback.at_step = lambda step: {"calls": 1.0}
    history = model.fit(x, y, batch_size=4, verbose=0, callbacks=[callback]).history
    assert steps_of(callback) == expected
    assert isinstance(history["calls"][0], float)


@pytest.mark.slow
def test_does_not_act_twice_on_the_last_step():
    callback, model = Counting(5), toy.compressed()
    callback.at_step = lambda step: {"calls": 1.0}
    drive(callback, model, 10)
    assert steps_of(callback) == [0, 5, 10]


@pytest.mark.slow
def test_acts_again_at_the_end_if_something_has_changed():
    callback, model = Counting(5), toy.compressed()
    begin(callback, model)
    model.optimizer.iterations.assign_add(5)
    callback.on_train_batch_end(0, {})
    model.get_layer("head").bias.assign([1.0, 2.0, 3.0])
    callback.on_train_end()
    assert steps_of(callback) == [0, 5, 5]


@pytest.mark.slow
def test_the_same_evidence_does_not_count_twice():
    callback = Counting(5)  # finds another value at each call
    drive(callback, toy.compressed(), 10)
    assert steps_of(callback) == [0, 5, 10]


@pytest.mark.slow
def test_the_last_entry_is_of_the_weights_that_fit_leaves(tmp_path):
    class SetsWeights(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            assert callback.active
            self.model.get_layer("head").bias.assign([1.0, 2.0, 3.0])

    model, callback = toy.compressed(), Counting(5, tmp_path)
    callback.at_step = lambda step: {"calls": float(model.get_layer("head").bias[2])}
    model.fit(*toy.points(), batch_size=16, verbose=0, callbacks=[callback, SetsWeights()])
    assert steps_of(callback) == [0, 3, 3]
    assert callback.latest == {"calls": 3.0}
    assert not callback.active
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_plain_keras_model_ends_it_too(tmp_path):
    model, callback = toy.dense_net(), Counting(5, tmp_path)
    model.compile("sgd", toy.cross_entropy(), run_eagerly=True)
    model.fit(*toy.points(), batch_size=16, verbose=0, callbacks=[callback])
    assert steps_of(callback) == [0, 3]
    assert not callback.active
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_batch_has_the_latest_values():
    seen = drive(Counting(3), toy.compressed(), 7)
    assert [logs["calls"] for logs in seen] == [1, 1, 2, 2, 2, 3, 3]
    assert all(isinstance(logs["calls"], float) and logs["loss"] == 0 for logs in seen)


@pytest.mark.slow
def test_the_epochs_logs_have_them_too():
    callback, logs = Counting(3), {}
    drive(callback, toy.compressed(), 4)
    callback.on_epoch_end(0, logs)
    callback.on_epoch_end(0, None)
    assert logs == callback.latest == {"calls": 3.0}


@pytest.mark.slow
def test_a_second_fit_keeps_the_rhythm_of_the_optimizer_and_starts_a_new_history():
    callback, model = Counting(4), toy.compressed()
    drive(callback, model, 6)
    drive(callback, model, 7)
    assert steps_of(callback) == [6, 8, 12, 13]


@pytest.mark.slow
def test_an_interrupted_history_goes_on_from_the_restored_step(tmp_path):
    model = toy.compressed()
    first = Counting(2, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first, "on_train_end", lambda: None)  # never reached
        drive(first, model, 7)
    model.optimizer.iterations.assign(5)  # the weights that were saved are older
    second = Counting(2, tmp_path)
    seen = drive(second, model, 4)
    assert steps_of(second) == [0, 2, 4, 6, 8, 9]
    assert [entry["calls"] for entry in second.history] == [1, 2, 3, 1, 2, 3]
    assert seen[0]["calls"] == 1.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_stale_backup_does_not_reach_a_fresh_model(tmp_path):
    for step in (0, 2, 4):
        write(tmp_path, step, [{"step": step, "calls": 99.0}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callback := Counting(2, tmp_path), "on_train_end", lambda: None)  # never reached
        drive(callback, toy.compressed(), 3)
    assert callback.history == [{"step": 0, "calls": 1.0}, {"step": 2, "calls": 2.0}]
    assert names(tmp_path) == ["counting-0.npz", "counting-2.npz"]  # those of the other run are gone


def write(folder, step, history):
    (folder / f"counting-{step}.npz").write_bytes(pack({"history": history, "acted_on": None}))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


WHOLE = pack({"history": [{"step": 3, "calls": 1.0}], "acted_on": None})
DAMAGED = {
    "empty": b"",
    "text": b"[1]",
    "truncated": WHOLE[:-30],
    "flipped": WHOLE.replace(b"c\0\0\0a", b"f\0\0\0a"),
    "no dictionary": pack([1]),
    "other keys": pack({"a": 1}),
    "no history": pack({"history": [], "acted_on": None}),
    "no calls": pack({"history": [{"step": 1}], "acted_on": None}),
    "numbers": pack({"history": 3, "acted_on": None}),
}


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_backup_is_dropped_with_a_warning_and_the_one_before_is_taken(tmp_path, caplog, content, older):
    if older:
        write(tmp_path, 2, [{"step": 2, "calls": 7.0}])
    (tmp_path / "counting-3.npz").write_bytes(content)
    model = toy.dense_net()
    model.compile("sgd", "mse")
    model.optimizer.iterations.assign(3)
    callback = Counting(2, tmp_path)
    drive(callback, model, 1)
    assert steps_of(callback) == ([2, 4] if older else [3, 4])
    assert "counting-3.npz is damaged and was dropped" in caplog.text


def test_states_of_the_last_actions_and_of_the_last_epochs_are_kept(tmp_path):
    model = toy.dense_net()
    model.compile("sgd", "mse")
    begin(callback := Counting(2, tmp_path), model)
    for step in range(1, 101):
        model.optimizer.iterations.assign(step)
        callback.on_train_batch_end(0)
        if step in (21, 33, 47):
            callback.on_epoch_end(0)
    steps = [32, 46, *range(70, 101, 2)]
    assert names(tmp_path) == sorted(f"counting-{step}.npz" for step in steps)


def test_what_a_kill_left_half_written_goes_with_the_rest(tmp_path):
    (tmp_path / ".123-partial-counting-7.npz").touch()
    (tmp_path / "of somebody else.npz").touch()
    model = toy.dense_net()
    model.compile("sgd", "mse")
    drive(Counting(2, tmp_path), model, 3)
    assert names(tmp_path) == ["of somebody else.npz"]


def test_states_come_back_as_they_were():
    arrays = [np.arange(6, dtype=np.int8).reshape(2, 3), np.array(1.5, "bfloat16"), np.zeros((0, 2)), np.array([True])]
    back = unpack(pack({"a": {"b": [arrays, None, "text"]}, "c": float("nan"), "d": (1, 0.1)}))
    for array, same in zip(arrays, back["a"]["b"][0], strict=True):
        np.testing.assert_array_equal(array, same, strict=True)
    assert back["a"]["b"][1:] == [None, "text"] and np.isnan(back["c"]) and back["d"] == [1, 0.1]


@pytest.mark.parametrize("every", [0, -1, 1.5, "x", None, float("nan")])
def test_what_is_no_number_of_steps_is_refused(every):
    with pytest.raises(ValueError, match=f"Expected every .* Received: every={every!r}$"):
        EveryNSteps(every)


@pytest.mark.parametrize("folder", ["", 3, __file__, f"{__file__}/below"])
def test_what_cannot_be_a_folder_is_refused(folder):
    with pytest.raises(ValueError, match=r"Expected backup_dir .* Received: backup_dir="):
        EveryNSteps(1, folder)


def test_the_base_acts_on_nothing():
    with pytest.raises(TypeError, match="EveryNSteps must override"):
        EveryNSteps(1).at_step(0)
