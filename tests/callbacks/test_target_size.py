import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import toy_problem as toy
from absl import logging

from scc_tf.callbacks import KernelRestoration, SafetyMonitor, TargetSize
from scc_tf.callbacks.target_size import GAIN, HELD_BACK, LARGEST_CHANGE, steered
from scc_tf.finishing import finished_bytes
from scc_tf.layers import self_compressing_layers

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


# Safety --------------------------------------------------------------------------------------------------------------


class SafeFit:
    """A fit of a toy model with scripted sizes and safety accuracies; ``step`` is one training step."""

    def __init__(self, **settings):
        self.model = toy.compressed(gamma=1.0)
        self.model.in_fit = True
        self.monitor = SafetyMonitor(toy.safety_set(), every=1)
        self.monitor.safety_accuracy = lambda: self.accuracy
        self.restoration = KernelRestoration(self.monitor, 0.05, restore_fraction=0.0)
        self.target = TargetSize(
            100, every=1, approach=1, measure=lambda model: self.size, restoration=self.restoration, **settings
        )
        self.size, self.accuracy = 100, 1.0
        self.callbacks = (self.monitor, self.target, self.restoration)
        for callback in self.callbacks:
            callback.set_model(self.model)
            callback.on_train_begin()

    def step(self, size, accuracy):
        self.size, self.accuracy = size, accuracy
        self.model.optimizer.iterations.assign_add(1)
        self.model.layers[-1].bias.assign_add([1.0, 0.0, 0.0])  # other weights are checked anew
        for callback in self.callbacks:
            callback.on_train_batch_end(0, {})
        return float(self.model.gamma)

    def end(self):
        for method, callbacks in (("on_train_end", self.callbacks), ("on_fit_end", self.callbacks[::-1])):
            for callback in callbacks:
                getattr(callback, method)()


@pytest.mark.parametrize("size", [50, 100, 500])
def test_beyond_the_contract_gamma_waits_and_then_falls_whatever_the_size(size):
    fit = SafeFit()
    assert fit.step(size, 0.9) == 1.0
    assert fit.step(size, 0.9) == pytest.approx(math.exp(-HELD_BACK))
    assert fit.step(size, 0.9) == pytest.approx(math.exp(-2 * HELD_BACK))
    assert [entry["held_back"] for entry in fit.target.history] == [0.0, 1.0, 1.0, 1.0]


def test_when_safety_is_back_the_size_is_wanted_again():
    fit = SafeFit()
    assert fit.step(150, 0.95) > 1  # a drop of the threshold is within the contract
    low = fit.step(150, 0.9)
    assert fit.step(150, 1.0) > low


def test_where_both_cannot_be_had_safety_wins_and_the_end_says_so(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "log", lambda level, *text: said.append((level, text[0])))
    fit = SafeFit()
    fit.step(150, 0.8)
    fit.accuracy = 1.0  # of the state that restoration goes back to
    fit.end()
    assert (fit.target.reached, fit.target.safe) == (False, True)
    assert (
        "+50.0 % off the target of 100 B; safety is kept: safety went first and held gamma back" in fit.target.outcome
    )
    assert said[-1] == (logging.WARNING, fit.target.outcome)


def test_both_had(monkeypatch):
    fit = SafeFit()
    fit.step(101, 1.0)
    fit.end()
    assert (fit.target.reached, fit.target.safe) == (True, True)
    assert fit.target.outcome == "The file has 101 B, +1.0 % off the target of 100 B; safety is kept."


def test_the_last_measurement_is_of_the_weights_that_restoration_put_back():
    fit = SafeFit()
    fit.step(80, 1.0)
    hidden = fit.model.get_layer("hidden")
    hidden.kernel.assign(0 * hidden.kernel)
    fit.step(40, 0.5)

    def measure(model):
        return 80 if np.any(model.get_layer("hidden").kernel) else 40

    fit.target.measure = measure
    fit.end()
    assert fit.restoration.reverted
    assert fit.target.history[-1]["stored_bytes"] == 80


# fit -----------------------------------------------------------------------------------------------------------------


def some_bytes(model):
    """A size that is quick to measure."""
    return 10 + sum(np.count_nonzero(layer.codes()) for layer in self_compressing_layers(model))


def fit(callbacks, epochs=2, model=None, **settings):
    model = model or toy.compressed(gamma=0.5, size_model="entropy", run_eagerly=False, jit_compile=False)
    history = model.fit(*toy.points(), batch_size=16, epochs=epochs, verbose=0, callbacks=callbacks, **settings)
    return model, history.history


def test_safety_in_the_approach_is_no_reason():
    fit = SafeFit(limits=(1e-4, 1.05))
    fit.target.approach = 3
    fit.step(150, 0.9)
    for _ in range(6):
        fit.step(150, 1.0)
    fit.end()
    assert fit.target.outcome.endswith("safety is kept: gamma is at its limit of 1.05.")


def test_all_reasons_are_told():
    fit = SafeFit(limits=(0.99, 1.01))
    fit.step(150, 0.9)
    fit.step(150, 1.0)
    fit.end()
    assert "held gamma back at 1 of the 2 measurements" in fit.target.outcome
    assert fit.target.outcome.endswith(" and gamma is at its limit of 1.01.")


def test_a_fit_that_finds_no_history_says_that_gamma_starts_anew(caplog):
    fit = SafeFit()
    fit.model.optimizer.iterations.assign(7)
    with caplog.at_level("INFO", logger="absl"):
        fit.target.on_train_begin()
    (said,) = [record.getMessage() for record in caplog.records if "TargetSize finds no history" in record.getMessage()]
    assert "gamma starts where compile put it" in said
    assert "backup_dir" in said


@pytest.mark.slow
def test_size_and_gamma_are_logged_and_the_model_is_left_alone():
    target = TargetSize(150, every=3, approach=4)
    model, logs = fit([target])
    assert [entry["step"] for entry in target.history] == [0, 3, 6]
    assert target.history[-1]["stored_bytes"] == finished_bytes(model)
    assert logs["stored_bytes"][-1] == target.history[-1]["stored_bytes"]
    assert logs["gamma"][-1] == target.history[-1]["gamma"] == pytest.approx(float(model.gamma))
    assert set(logs) & {"wanted_bytes", "held_back", "learning_rate"} == set()
    assert json.loads(json.dumps(target.history)) == target.history
    assert target.outcome


@pytest.mark.slow
def test_safety_goes_first_beside_any_restoration():
    monitor = SafetyMonitor(toy.safety_set(), every=1)
    accuracies = iter([1.0, *[0.5] * 40])
    monitor.safety_accuracy = lambda: next(accuracies)
    target = TargetSize(20, every=1, measure=some_bytes, approach=3)
    fit([monitor, target, KernelRestoration(monitor, 0.1, restore_fraction=0.0)])
    assert [entry["held_back"] for entry in target.history[:4]] == [0.0, 1.0, 1.0, 1.0]
    assert target.safe is False


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_with_its_gamma(tmp_path):
    class Stop(keras.callbacks.Callback):
        def __init__(self, step):
            super().__init__()
            self.last = step

        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == self.last:
                raise KeyboardInterrupt

    def callbacks(folder, *more):
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder / "keras")
        target = TargetSize(20, every=1, measure=some_bytes, approach=3, backup_dir=tmp_path / folder / "own")
        return target, [backup, target, *more]

    def start():
        return toy.compressed(gamma=0.5, size_model="entropy", run_eagerly=False, jit_compile=False)

    whole, listed = callbacks("whole")
    fit(listed, 3, start(), shuffle=False)
    _, listed = callbacks("parts", Stop(5))
    with pytest.raises(KeyboardInterrupt):
        fit(listed, 3, start(), shuffle=False)
    again, listed = callbacks("parts")
    fit(listed, 3, start(), shuffle=False)
    assert [entry["step"] for entry in again.history] == list(range(10))
    for one, other in zip(again.history, whole.history, strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    assert list((tmp_path / "parts" / "own").iterdir()) == []


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
