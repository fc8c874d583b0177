import keras
import pytest
import toy_problem as toy

from scc_tf.callbacks.every_n_steps import EveryNSteps


class Counting(EveryNSteps):
    names = ("calls",)
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
def test_the_last_entry_is_of_the_weights_that_fit_leaves():
    class SetsWeights(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            assert callback.active
            self.model.get_layer("head").bias.assign([1.0, 2.0, 3.0])

    model, callback = toy.compressed(), Counting(5)
    callback.at_step = lambda step: {"calls": float(model.get_layer("head").bias[2])}
    model.fit(*toy.points(), batch_size=16, verbose=0, callbacks=[callback, SetsWeights()])
    assert steps_of(callback) == [0, 3, 3]
    assert callback.logged == {"calls": 3.0}
    assert not callback.active


@pytest.mark.slow
def test_a_plain_keras_model_ends_it_too():
    model, callback = toy.dense_net(), Counting(5)
    model.compile("sgd", toy.cross_entropy(), run_eagerly=True)
    model.fit(*toy.points(), batch_size=16, verbose=0, callbacks=[callback])
    assert steps_of(callback) == [0, 3]
    assert not callback.active


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
    assert logs == callback.logged == {"calls": 3.0}


@pytest.mark.slow
def test_a_second_fit_keeps_the_rhythm_of_the_optimizer_and_starts_a_new_history():
    callback, model = Counting(4), toy.compressed()
    drive(callback, model, 6)
    drive(callback, model, 7)
    assert steps_of(callback) == [6, 8, 12, 13]


@pytest.mark.parametrize("every", [0, -1, 1.5, "x", None, float("nan")])
def test_what_is_no_number_of_steps_is_refused(every):
    with pytest.raises(ValueError, match=f"Expected every .* Received: every={every!r}$"):
        EveryNSteps(every)
