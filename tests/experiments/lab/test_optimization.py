import itertools

import keras
import numpy as np
import pytest
from lab.optimization import hold_then_cosine, multi_step, one_cycle, sgd


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, 10, 200])
def test_one_cycle_rises_to_its_peak_and_falls_to_zero(steps):
    schedule = one_cycle(0.3, steps, warm_up=0.2)
    rates = [float(schedule(step)) for step in range(steps + 1)]
    top = max(1, round(0.2 * steps))
    assert rates[0] == pytest.approx(0.03)
    assert rates[top] == pytest.approx(0.3) == max(rates)
    assert all(a < b for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a > b for a, b in itertools.pairwise(rates[top:]))
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_one_cycle_of_one_step_has_a_rate():
    assert 0 < float(one_cycle(0.3, 1)(0)) <= 0.3


@pytest.mark.slow
def test_hold_then_cosine_rises_stays_and_falls_to_zero():
    schedule = hold_then_cosine(2.0, 100, 0.5, warm_up=10)
    rates = np.array([float(schedule(step)) for step in range(101)])
    np.testing.assert_allclose(rates[:10], 0.2 * np.arange(1, 11), rtol=1e-6)
    np.testing.assert_allclose(rates[9:51], 2.0, rtol=1e-6)
    assert (np.diff(rates[50:]) < 0).all()
    assert rates[75] == pytest.approx(1.0, rel=1e-5)
    assert rates[100] == pytest.approx(0.0, abs=1e-6)


def test_hold_then_cosine_survives_its_configuration():
    schedule = hold_then_cosine(2.0, 100, 0.5)
    config = keras.optimizers.schedules.serialize(schedule)
    again = keras.optimizers.schedules.deserialize(config)
    assert [float(again(step)) for step in (0, 50, 99)] == [float(schedule(step)) for step in (0, 50, 99)]


def test_multi_step_falls_at_its_shares_of_the_steps():
    schedule = multi_step(0.4, 100, (0.5, 0.75))
    rates = [float(schedule(step)) for step in (0, 49, 50, 74, 75, 99)]
    assert rates == pytest.approx([0.4, 0.4, 0.04, 0.04, 0.004, 0.004])


def test_weight_decay_shrinks_kernels_as_an_l2_penalty_does_and_nothing_else():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="dense"), keras.layers.BatchNormalization()]
    )
    optimizer = sgd(model, 0.1, 0.9, 0.01, 0.0)
    optimizer.build(model.trainable_variables)
    kernel, before = model.get_layer("dense").kernel, [v.numpy() for v in model.trainable_variables]
    for _ in range(3):
        optimizer.apply([np.zeros(v.shape, np.float32) for v in model.trainable_variables])
    shrunk = before[0] * (1 - 0.1 * 0.01 / (1 - 0.9)) ** 3
    np.testing.assert_allclose(kernel.numpy(), shrunk, rtol=1e-5)
    for variable, value in zip(model.trainable_variables[1:], before[1:], strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
