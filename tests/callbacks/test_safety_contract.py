import logging

import keras
import numpy as np
import pytest
import toy_problem as toy
from scripted_fit import AtStep, Fit, kill

import scc_tf
from scc_tf.callbacks import GammaScheduler, KernelRestoration, SafetyMonitor, SizeLogger

# The contract --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_the_last_safe_state_is_put_back(fraction, caplog):
    run = Fit(accuracy=0.90, threshold=0.05, restore_fraction=fraction)
    run.step(0.96)
    kill([4])(run.model)
    run.step(0.92)  # the last that satisfies the contract: 0.96 - 0.05 <= 0.92
    safe = run.model.get_weights()
    kill(range(9))(run.model)
    run.step(0.89)  # would have done before step 1
    run.end()
    toy.assert_same(run.model.get_weights(), safe)
    assert (run.restoration.reverted, run.restoration.safe_step) == (True, 2)
    assert "Went back to step 2" in caplog.text
    assert len(run.restoration.events) == (1 if fraction else 0)


def test_a_fit_that_ends_well_is_left_alone(caplog):
    run = Fit()
    run.step(0.2)
    run.step(0.96)
    kill([1, 2])(run.model)
    last = run.model.get_weights()
    with caplog.at_level(logging.WARNING):
        run.end()
    toy.assert_same(run.model.get_weights(), last)
    assert not run.restoration.reverted
    assert caplog.text == ""


def poor_start(accuracy, reference):
    """A fit whose start is already below the contract."""
    run = Fit.__new__(Fit)
    run.model = toy.compressed()
    run.monitor = SafetyMonitor(toy.safety_set(), every=1, reference_accuracy=reference)
    run.monitor.safety_accuracy = lambda: run.accuracy
    run.restoration = KernelRestoration(run.monitor)
    run.accuracy = accuracy
    for callback in (run.monitor, run.restoration):
        callback.set_model(run.model)
    run.each("on_train_begin")
    return run


def test_a_start_that_breaks_the_contract_is_told_and_is_no_state_to_go_back_to(caplog):
    run = poor_start(0.46, reference=1.0)
    assert "broken before the first step: safety accuracy 46.00 %, 54.00 points below" in caplog.text
    assert (run.restoration.safe_step, run.event_steps) == (None, [])
    run.step(0.5)
    run.step(0.97)
    kept = run.model.get_weights()
    kill([1])(run.model)
    run.step(0.5)
    run.end()
    toy.assert_same(run.model.get_weights(), kept)
    assert (run.restoration.reverted, run.restoration.safe_step) == (True, 2)


@pytest.mark.parametrize(("last", "reverted"), [(0.56, False), (0.54, True)])
def test_where_no_check_satisfied_the_contract_the_end_is_near_the_best_and_says_so(last, reverted, caplog):
    run = poor_start(0.46, reference=1.0)
    run.step(0.6)
    best = run.model.get_weights()
    kill([1])(run.model)
    run.step(last)
    now = run.model.get_weights()
    run.end()
    toy.assert_same(run.model.get_weights(), best if reverted else now)
    assert (run.restoration.reverted, run.restoration.safe_step) == (reverted, None)
    assert "No check satisfied it" in caplog.text


@pytest.mark.parametrize(("last", "reverted"), [(0.875, False), (0.70, True)])
def test_what_new_batch_statistics_gain_before_the_first_step_is_not_owed(last, reverted, caplog):
    run = poor_start(0.9875, reference=0.7875)  # of a network that was handed in with statistics that lag behind
    run.step(0.99)
    run.step(last)
    now = run.model.get_weights()
    kill([1])(run.model)
    run.monitor.act()
    run.end()
    contract = run.model.contract
    assert (contract.reference_accuracy, contract.trained_accuracy) == (pytest.approx(0.79), 0.7875)
    assert run.restoration.reverted == reverted
    if reverted:
        assert "9.00 points below its reference of 79.00 % (78.75 % for the network that was handed in)" in caplog.text
    else:
        assert caplog.text == "" and len(now)


def test_a_network_that_was_handed_in_with_poor_statistics_is_the_reference_as_it_is():
    x, y = toy.images()
    net = toy.conv_net()
    net.compile(keras.optimizers.Adam(0.01), toy.cross_entropy(), run_eagerly=True)
    net.fit(x, y, batch_size=24, epochs=8, verbose=0)
    net.get_layer("norm").moving_mean.assign(np.full(6, 30.0))
    chosen = toy.safety_set(30, toy.images)
    handed_in = scc_tf.safety.safety_accuracy(net, chosen)
    model = toy.compressed(net, keras.optimizers.Adam(0.01), gamma=0.0)
    monitor = SafetyMonitor(chosen, every=2, statistics_images=x)
    restoration = KernelRestoration(monitor, threshold=0.0, restore_fraction=0.0)
    model.fit(x, y, batch_size=24, epochs=2, shuffle=False, verbose=0, callbacks=[restoration])
    checks = [check["safety_accuracy"] for check in monitor.history]
    assert monitor.trained_accuracy == handed_in < checks[0]
    gain = max(0.0, max(checks) - checks[0])
    assert model.contract.reference_accuracy == pytest.approx(handed_in + gain)
    assert not restoration.reverted


def test_the_contract_stays_with_the_model_through_cuts(tmp_path):
    run = Fit(accuracy=0.9, threshold=0.1)
    run.step(0.95)
    run.end()
    contract = run.model.contract
    assert (contract.reference_accuracy, contract.threshold, contract.allows(0.84)) == (0.95, 0.1, False)
    assert contract.safety_set is run.monitor.safety_set
    kill([0])(run.model)
    smaller, _ = scc_tf.remove_dead_channels(run.model)
    assert smaller.contract is contract and smaller.reference is run.model.reference
    run.model.remove_dead_channels()
    assert run.model.contract is contract
    run.model.save(tmp_path / "model.keras")  # with neither the contract nor a second network in it
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.contract is None and loaded.reference is None
    toy.assert_same(loaded.get_weights(), run.model.get_weights())


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_a_huge_gamma_cannot_break_the_contract(fraction, caplog):
    x, y = toy.points()
    model = toy.compressed(
        optimizer=keras.optimizers.Adam(0.05),
        gamma=0.0,
        format_optimizer=keras.optimizers.SGD(1.0),
        run_eagerly=False,
        jit_compile=False,
    )
    monitor = SafetyMonitor(toy.safety_set(30), every=4)
    restoration = KernelRestoration(monitor, threshold=0.05, restore_fraction=fraction)
    gamma = GammaScheduler(lambda step: 0.0 if step < 24 else 1e3)
    model.fit(x, y, batch_size=12, epochs=10, shuffle=False, verbose=0, callbacks=[gamma, monitor, restoration])
    collapsed, reverted = monitor.history[-2:]
    assert collapsed["safety_accuracy"] < 0.7 < 0.8 <= reverted["safety_accuracy"]
    assert collapsed["step"] == reverted["step"] == 40
    reached = monitor.safety_accuracy()
    assert reached >= monitor.reference_accuracy - 0.05 >= 0.8
    assert restoration.reverted
    assert 0 < restoration.safe_step <= 24
    assert "Went back to step" in caplog.text
    assert bool(restoration.events) == (fraction > 0)


@pytest.mark.slow
def test_weights_that_early_stopping_restores_cannot_break_the_contract(caplog):
    model = toy.compressed(optimizer=keras.optimizers.Adam(0.05), gamma=0.0, run_eagerly=False, jit_compile=False)
    monitor = SafetyMonitor(toy.safety_set(30), every=8)
    restoration = KernelRestoration(monitor)
    sizes = SizeLogger(1)
    # at the end of an epoch, and between two checks, nothing is left: no state is smaller
    kill_all = AtStep(28, kill(range(12)))
    revive_all = AtStep(29, lambda model: model.get_layer("hidden").bit_depth.assign(np.full(12, 4.0)))
    smallest = keras.callbacks.EarlyStopping("nominal_bytes", mode="min", patience=100, restore_best_weights=True)
    callbacks = [kill_all, revive_all, sizes, monitor, restoration, smallest]
    model.fit(*toy.points(), batch_size=12, epochs=10, shuffle=False, verbose=0, callbacks=callbacks)
    assert smallest.best_epoch == 6
    assert restoration.reverted and "Went back to step 40" in caplog.text
    collapsed, reverted = monitor.history[-2:]
    assert collapsed["safety_accuracy"] < 0.5
    assert reverted["safety_accuracy"] == monitor.safety_accuracy() >= monitor.reference_accuracy - 0.05
    assert sizes.history[-1]["nominal_bytes"] == scc_tf.size_report(model).nominal_bits / 8
    assert sizes.history[-1]["dead_channels"] == 0
    assert not monitor.active


def test_a_loop_of_ones_own_keeps_the_contract_too():
    model = toy.compressed()
    monitor = SafetyMonitor(toy.safety_set(30), every=1)
    restoration = KernelRestoration(monitor, restore_fraction=0.0)
    callbacks = keras.callbacks.CallbackList([monitor, restoration], model=model)
    monitor.safety_accuracy = lambda: 0.9 if np.any(model.get_layer("hidden").bit_depth) else 0.3
    callbacks.on_train_begin()
    model.train_on_batch(*toy.points())
    kill(range(12))(model)
    callbacks.on_train_batch_end(0, {})
    callbacks.on_train_end()
    assert restoration.reverted
    assert [check["safety_accuracy"] for check in monitor.history] == [0.9, 0.3, 0.9]
    assert not monitor.active


@pytest.mark.slow
@pytest.mark.parametrize("drop", [0.05, 0.06])
def test_the_end_does_not_move_an_average_towards_the_last_check(drop):
    model, accuracies = toy.compressed(), iter([1.0, 1.0 - drop, 1.0])
    model.reference = None  # the checks alone are compared
    monitor = SafetyMonitor(toy.safety_set(), every=1, reference="average", decay=0.5)
    monitor.safety_accuracy = lambda: next(accuracies)
    restoration = KernelRestoration(monitor, threshold=0.05, restore_fraction=0.0)
    model.fit(*toy.points(), batch_size=48, verbose=0, callbacks=[monitor, restoration])
    assert restoration.reverted == (drop > 0.05)


@pytest.mark.slow
def test_a_collapse_is_undone_and_the_accuracy_comes_back():
    x, y = toy.points()
    model = toy.compressed(optimizer=keras.optimizers.Adam(0.05), gamma=0.001, run_eagerly=False, jit_compile=False)
    monitor = SafetyMonitor(toy.safety_set(30), every=4)
    restoration = KernelRestoration(monitor, restore_fraction=0.5)
    sabotage = AtStep(24, kill(range(12)))
    model.fit(x, y, batch_size=12, epochs=20, shuffle=False, verbose=0, callbacks=[sabotage, monitor, restoration])
    accuracy = {check["step"]: check["safety_accuracy"] for check in monitor.history}
    assert accuracy[20] >= 0.9 > 0.5 > accuracy[24]
    assert restoration.events[0]["step"] == 24
    assert restoration.events[0]["restored"]["hidden/kernel"] == 6
    assert accuracy[80] >= 0.9
    assert not restoration.reverted
    alive = np.count_nonzero(np.asarray(model.get_layer("hidden").bit_depth))
    assert 6 <= alive < 12  # the last safe state was not merely put back
