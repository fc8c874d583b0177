import math
from types import SimpleNamespace

import numpy as np
import pytest
import toy_problem as toy

from scc_tf.callbacks import TargetSize
from scc_tf.callbacks.target_size import GAIN, LARGEST_CHANGE, steered

TARGETS = (1000, 2500, 5000, 10_000, 20_000)


class Rate:
    """The learning rate of a plant; warm-up and cosine, as in the pipelines."""

    def __init__(self, total):
        self.total = total

    def __call__(self, step):
        warm = 0.15 * self.total
        if step < warm:
            return 0.1 + 0.9 * step / warm
        return 0.5 * (1 + math.cos(math.pi * min((step - warm) / (self.total - warm), 1)))


class Gamma:
    """As much of a variable as is needed."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return self.value

    def numpy(self):
        return self.value

    def assign(self, value):
        self.value = value


class Model:
    """What a `TargetSize` sees of a model whose size follows gamma with a lag, the slower the smaller the rate."""

    in_fit, name = True, "plant"

    def __init__(self, rate, lag=300.0, power=0.5, start=40_000.0, at_one=5000.0, gamma=0.1):
        self.rate, self.lag, self.power, self.at_one = rate, lag, power, at_one
        self.gamma = Gamma(gamma)
        self.log_size, self.steps = math.log(start), 0

    @property
    def optimizer(self):
        return self

    @property
    def iterations(self):
        return SimpleNamespace(numpy=lambda: self.steps)

    @property
    def learning_rate(self):
        return self.rate(self.steps)

    def get_weights(self):
        return [np.float64(self.log_size)]

    def train(self, steps):
        settled = math.log(self.at_one) - self.power * math.log(float(self.gamma))
        for _ in range(steps):
            self.log_size += self.rate(self.steps) / self.lag * (settled - self.log_size)
            self.steps += 1


def plant_fit(target_bytes, total=8000, rate=None, every=100, **plant):
    model = Model(rate or Rate(total), **plant)
    target = TargetSize(
        target_bytes,
        every=every,
        approach=total // 2,
        measure=lambda plant: math.exp(plant.log_size),
        limits=(1e-6, 1e6),
    )
    target.set_model(model)
    target.on_train_begin()
    for _ in range(total // every):
        model.train(every)
        target.on_train_batch_end(0, {})
    target.on_train_end()
    target.on_fit_end()
    return target


# The rule ------------------------------------------------------------------------------------------------------------


def test_at_the_wanted_size_gamma_stays():
    assert steered(0.7, (0.0, 0.0), 3.0, (1e-4, 1e4)) == 0.7


@pytest.mark.parametrize("error", [0.01, -0.02])
def test_a_size_that_is_off_moves_gamma_by_the_rule(error):
    moved = steered(1.0, (0.0, error), 0.5, (1e-4, 1e4))
    assert math.log(moved) == pytest.approx(GAIN * 1.5 * error)


def test_a_change_is_limited_and_so_is_gamma():
    assert steered(1.0, (0.0, 9.0), 1.0, (1e-4, 1e4)) == pytest.approx(math.exp(LARGEST_CHANGE))
    assert steered(1.0, (0.0, -9.0), 1.0, (0.9, 1.1)) == 0.9
    assert steered(0.0, (0.0, 1.0), 1.0, (0.01, 1.1)) == 0.01


def test_far_below_the_wanted_size_gamma_falls_at_once():
    assert steered(1.0, (0.0, -1.0), 1.0, (1e-4, 1e4)) == pytest.approx(math.exp(-2 * GAIN))
    assert steered(1.0, (0.5, -0.05), 1.0, (1e-4, 1e4)) == pytest.approx(math.exp(-LARGEST_CHANGE))


def test_at_a_limit_nothing_winds_up():
    gamma = 1.0
    for _ in range(50):
        gamma = steered(gamma, (1.0, 1.0), 1.0, (1e-4, 2.0))
    assert gamma == 2.0
    assert steered(gamma, (1.0, -0.05), 1.0, (1e-4, 2.0)) < 1.3


# A plant with a lag --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_bytes", TARGETS)
@pytest.mark.parametrize(
    "plant",
    [
        {},
        {"lag": 100.0},
        {"lag": 600.0},
        {"power": 0.25, "lag": 200.0},
        {"power": 1.2},
        {"gamma": 0.01},
        {"gamma": 2.0},
        {"every": 25},
        {"every": 200},
    ],
    ids=str,
)
def test_the_size_ends_near_the_target(plant, target_bytes):
    target = plant_fit(target_bytes, **plant)
    assert target.history[-1]["stored_bytes"] == pytest.approx(target_bytes, rel=0.1)


@pytest.mark.parametrize("every", [25, 50, 100])
@pytest.mark.parametrize("target_bytes", TARGETS)
def test_the_size_neither_swings_nor_falls_far_below_the_target(target_bytes, every):
    sizes = [entry["stored_bytes"] for entry in plant_fit(target_bytes, every=every).history]
    assert min(sizes) > 0.9 * target_bytes
    signs = np.sign([size / target_bytes - 1 for size in sizes if abs(size / target_bytes - 1) > 0.01])
    assert np.count_nonzero(np.diff(signs)) <= 1


def test_gamma_rests_where_nothing_is_learned():
    target = plant_fit(2500, total=3000, rate=lambda step: float(step < 2000), lag=5000.0)  # too slow to be reached
    assert not target.reached
    gammas = [entry["gamma"] for entry in target.history]
    assert gammas[15] < gammas[20]
    assert gammas[21:] == [gammas[21]] * 10


def test_gamma_moves_less_as_the_learning_rate_falls():
    target = plant_fit(2500, total=3000, lag=20_000.0, start=2800.0)
    changes = np.diff([math.log(entry["gamma"]) for entry in target.history])
    assert (changes[-4:] > 0).all()
    assert (np.diff(changes[-4:]) < 0).all()


def test_the_wanted_size_falls_geometrically():
    history = plant_fit(10_000).history
    assert [entry["wanted_bytes"] for entry in history][:81:20] == pytest.approx([40_000, 20_000, 10_000, 1e4, 1e4])


def test_a_target_that_is_reached_is_said_to_be():
    target = plant_fit(10_000, power=1.0)
    assert (target.reached, target.safe) == (True, None)
    assert target.outcome.endswith("off the target of 10,000 B.")


def test_what_is_not_reached_has_a_reason():
    slow = plant_fit(1000, total=2000, lag=5000.0)
    assert "still on its way" in slow.outcome
    target = TargetSize(100, every=1, measure=lambda model: 5000, approach=1, limits=(0.05, 0.2))
    target.set_model(Model(Rate(100)))
    target.on_train_begin()
    for _ in range(20):
        target.model.train(1)
        target.on_train_batch_end(0)
    target.on_fit_end()
    assert "gamma is at its limit of 0.2" in target.outcome


def test_a_model_without_gamma_is_refused():
    target = TargetSize(1000)
    target.set_model(toy.dense_net())
    with pytest.raises(ValueError, match="which has a gamma"):
        target.on_train_begin()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_bytes": 0}, "target_bytes=0"),
        ({"target_bytes": math.nan}, "target_bytes=nan"),
        ({"every": 0}, "every=0"),
        ({"approach": 0}, "approach=0"),
        ({"horizon": 0.5}, "horizon=0.5"),
        ({"limits": (0.0, 1.0)}, "limits="),
        ({"limits": (2.0, 1.0)}, "limits="),
    ],
)
def test_arguments_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        TargetSize(**{"target_bytes": 1000, **settings})
