"""Safety before size, and `fit`; the rule, and a plant with a lag: ``test_target_size.py``."""

import json
import math

import numpy as np
import pytest
import toy_problem as toy
from absl import logging

from scc_tf.callbacks import GammaScheduler, KernelRestoration, SafetyMonitor, TargetSize
from scc_tf.callbacks.target_size import HELD_BACK
from scc_tf.finishing.finish import finished_bytes
from scc_tf.layers import self_compressing_layers

# Safety --------------------------------------------------------------------------------------------------------------


class SafeFit:
    """A fit of a toy model with scripted sizes and safety accuracies; ``step`` is one training step."""

    def __init__(self, **settings):
        self.model = toy.compressed(gamma=1.0)
        self.model.in_fit = True
        self.monitor = SafetyMonitor(toy.safety_set(), every=1, reference_accuracy=1.0)
        self.monitor.safety_accuracy = lambda: self.accuracy
        self.restoration = KernelRestoration(self.monitor, 0.05, restore_fraction=0.0)
        self.target = TargetSize(100, every=1, approach=1, measure=lambda model: self.size, **settings)
        self.size, self.accuracy = 100, 1.0
        self.callbacks = (self.monitor, self.target, self.restoration)
        params = {}  # one for all, as in fit
        for callback in self.callbacks:
            callback.set_model(self.model)
            callback.set_params(params)
        for callback in self.callbacks:
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


@pytest.mark.parametrize("size", [100, 500])
def test_beyond_the_contract_gamma_waits_and_then_falls_however_large_the_file(size):
    fit = SafeFit()
    assert fit.step(size, 0.9) == 1.0
    assert fit.step(size, 0.9) == pytest.approx(math.exp(-HELD_BACK))
    assert fit.step(size, 0.9) == pytest.approx(math.exp(-2 * HELD_BACK))
    assert [entry["held_back"] for entry in fit.target.history] == [0.0, 1.0, 1.0, 1.0]


def test_beyond_the_contract_a_price_that_is_too_high_falls_at_once():
    fit = SafeFit()
    assert fit.step(50, 0.9) < math.exp(-HELD_BACK)
    assert fit.step(50, 0.9) < math.exp(-2 * HELD_BACK)


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
    monitor = SafetyMonitor(toy.safety_set(), every=1, reference_accuracy=1.0)
    accuracies = iter([1.0, *[0.5] * 40])
    monitor.safety_accuracy = lambda: next(accuracies)
    target = TargetSize(20, every=1, measure=some_bytes, approach=3)
    fit([monitor, target, KernelRestoration(monitor, 0.1, restore_fraction=0.0)])
    assert [entry["held_back"] for entry in target.history[:4]] == [0.0, 1.0, 1.0, 1.0]
    assert target.safe is False


def test_two_callbacks_that_set_gamma_are_refused():
    with pytest.raises(ValueError, match=r"not both: each sets gamma\. Received: callback="):
        fit([TargetSize(20, measure=some_bytes), GammaScheduler(lambda step: 0.1)])
