import math

import keras
import numpy as np
import pytest
import toy_problem as toy

from scc_tf.callbacks import GammaScheduler


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logged = []

    def on_train_batch_end(self, batch, logs=None):
        self.logged.append(logs["gamma"])


def fit(schedule, model=None, epochs=1):
    model = model or toy.compressed(gamma=7.0)
    watch = Watch()
    x, y = toy.points()
    history = model.fit(x, y, batch_size=16, epochs=epochs, verbose=0, callbacks=[GammaScheduler(schedule), watch])
    return model, watch.logged, history.history


@pytest.mark.slow
def test_a_function_sets_gamma_before_every_step():
    model, logged, history = fit(lambda step: 0.25 * step, epochs=2)
    assert logged == [0.25 * step for step in range(6)]
    assert history["gamma"] == [0.5, 1.25]
    assert all(isinstance(value, float) for value in logged + history["gamma"])
    assert float(model.gamma) == 1.25


@pytest.mark.slow
def test_with_several_steps_per_execution_it_acts_once_per_execution():
    model = toy.compressed(run_eagerly=False, jit_compile=False, steps_per_execution=2)
    _, logged, _ = fit(lambda step: 0.25 * step, model, epochs=2)
    assert logged == [0.0, 0.5, 0.75, 1.25]


@pytest.mark.slow
def test_the_step_uses_the_gamma_that_was_set():
    x, y = toy.points(12)
    model = toy.compressed(gamma=0.0)
    task = float(toy.cross_entropy()(y, model(x)))
    q = float(model.size_term())
    loss = model.fit(x, y, batch_size=12, verbose=0, callbacks=[GammaScheduler(lambda step: 0.5)]).history["loss"]
    assert loss[0] == pytest.approx(task + 0.5 * q, rel=1e-5)


@pytest.mark.slow
def test_a_keras_schedule_works_and_goes_on_from_the_optimizers_step():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, 4, 0.02, power=1.0)
    model, logged, _ = fit(schedule)
    np.testing.assert_allclose(logged, [0, 0.005, 0.01], rtol=1e-6)
    _, logged, _ = fit(schedule, model)
    np.testing.assert_allclose(logged, [0.015, 0.02, 0.02], rtol=1e-6)


@pytest.mark.parametrize("gamma", [-0.001, math.nan, math.inf, "0.1", None])
def test_a_schedule_that_gives_a_bad_gamma_is_stopped_at_that_step(gamma):
    scheduler, model = GammaScheduler(lambda step: gamma if step == 3 else 0.1), toy.compressed()
    scheduler.set_model(model)
    scheduler.on_train_batch_begin(0)
    model.optimizer.iterations.assign(3)
    with pytest.raises(ValueError, match=r"schedule\(3\)"):
        scheduler.on_train_batch_begin(1)
    assert float(model.gamma) == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", [0.1, None, "linear"])
def test_a_schedule_that_is_no_function_is_refused(schedule):
    with pytest.raises(ValueError, match=f"Received: schedule={schedule!r}$"):
        GammaScheduler(schedule)


def test_a_model_without_gamma_is_refused_before_the_first_step():
    scheduler = GammaScheduler(lambda step: 0.1)
    scheduler.set_model(toy.dense_net())
    with pytest.raises(ValueError, match="which has a gamma"):
        scheduler.on_train_begin()
