import math

import keras
import numpy as np
import pytest
import toy_problem as toy
from scripted_fit import Fit, kill

import scc_tf
from scc_tf.callbacks import KernelRestoration, SafetyMonitor
from scc_tf.optimizer_state import optimizer_slots

# Restoring -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dead", "fraction"), [(1, 0.5), (5, 0.5), (12, 0.25), (7, 0.01), (3, 1.0)])
def test_a_drop_revives_the_fraction_of_the_dead_channels_rounded_up(dead, fraction):
    run = Fit(restore_fraction=fraction, restore_bits=3.0)
    hidden = run.model.get_layer("hidden")
    kill(range(dead))(run.model)
    before = toy.formats(run.model)
    logs = run.step(0.5)
    bits, exponents = np.asarray(hidden.bit_depth), np.asarray(hidden.exponent)
    revived = np.flatnonzero(bits[:dead] > 0)
    assert len(revived) == math.ceil(fraction * dead) == logs["restored_channels"]
    assert isinstance(logs["restored_channels"], float)
    np.testing.assert_array_equal(bits[revived], 3.0)
    spanning = np.log2(np.abs(hidden.kernel).max(0)) - (3.0 - 1.0)
    np.testing.assert_allclose(exponents[revived], spanning[revived], rtol=1e-5)
    others = np.setdiff1d(np.arange(12), revived)
    np.testing.assert_array_equal(bits[others], before[hidden.bit_depth.path][others])
    np.testing.assert_array_equal(exponents[others], before[hidden.exponent.path][others])
    head = run.model.get_layer("head")
    np.testing.assert_array_equal(head.bit_depth, before[head.bit_depth.path])
    assert run.restoration.events == [{"step": 1, "safety_drop": 0.5, "restored": {"hidden/kernel": len(revived)}}]


def test_the_optimizer_slots_of_exactly_the_revived_channels_are_cleared():
    run = Fit(restore_fraction=0.5)
    hidden = run.model.get_layer("hidden")
    kill([0, 3, 5, 8])(run.model)
    run.step(0.5)
    revived = np.isin(np.arange(12), [0, 3, 5, 8]) & (np.asarray(hidden.bit_depth) > 0)
    assert revived.sum() == 2
    for optimizer, variable, count in (
        (run.model.format_optimizer, hidden.bit_depth, 1),
        (run.model.format_optimizer, hidden.exponent, 1),
        (run.model.optimizer, hidden.kernel, 2),
    ):
        slots = optimizer_slots(optimizer, variable)
        assert len(slots) == count
        for slot in slots:
            np.testing.assert_array_equal(np.asarray(slot), np.broadcast_to(~revived, slot.shape).astype(float))
    for variable in (hidden.bias, run.model.get_layer("head").kernel):
        for slot in optimizer_slots(run.model.optimizer, variable):
            np.testing.assert_array_equal(slot, np.ones(slot.shape))


def entropy_model():
    model = scc_tf.self_compress(toy.dense_net(), 5, exponent_per="kernel", bias_exponent=-5)
    model.compile(
        keras.optimizers.Adam(0.01),
        toy.cross_entropy(),
        size_model="entropy",
        format_optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        run_eagerly=True,
    )
    return model


@pytest.mark.slow
def test_with_entropy_channels_without_codes_are_scaled_to_the_exponent_of_their_kernel():
    model = entropy_model()
    hidden = model.get_layer("hidden")
    dead = np.isin(np.arange(12), [0, 3, 5, 8])
    hidden.kernel.assign(np.asarray(hidden.kernel) * np.where(dead, 1e-3, 1))
    before, exponents = np.asarray(hidden.kernel), np.asarray(hidden.exponent)
    run = Fit(model=model, restore_fraction=0.5, restore_bits=3.0)
    run.step(0.5)
    codes, kernel = np.asarray(hidden.codes()), np.asarray(hidden.kernel)
    revived = dead & codes.any(axis=0)
    assert revived.sum() == 2
    assert run.restoration.events[0]["restored"] == {"hidden/kernel": 2}
    np.testing.assert_array_equal(np.abs(codes[:, revived]).max(axis=0), 2 ** (3 - 1))
    np.testing.assert_array_equal(kernel[:, ~revived], before[:, ~revived])
    ratios = kernel[:, revived] / before[:, revived]
    np.testing.assert_allclose(ratios, ratios[:1].repeat(8, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(hidden.exponent, exponents)
    np.testing.assert_array_equal(codes, np.round(kernel * np.exp2(-exponents)))  # nothing is clipped
    for slot in optimizer_slots(model.optimizer, hidden.kernel):
        np.testing.assert_array_equal(np.asarray(slot), np.broadcast_to(~revived, slot.shape).astype(float))
    for slot in optimizer_slots(model.format_optimizer, hidden.exponent):
        np.testing.assert_array_equal(slot, np.ones(12))
    model.train_on_batch(*toy.points())
    assert np.ptp(hidden.exponent) == 0


def test_every_kernel_with_dead_channels_gets_its_share_but_no_frozen_one():
    model = toy.compressed(toy.conv_net())
    model.get_layer("conv2").trainable = False
    for name, channels in (("conv1", [1, 2, 3]), ("conv2", [0, 1]), ("head", [2])):
        kill(channels, name)(model)
    run = Fit(model=model, momentum=False)
    run.step(0.5)
    assert run.restoration.events[0]["restored"] == {"conv1/kernel": 2, "head/kernel": 1}
    assert np.count_nonzero(np.asarray(model.get_layer("conv2").bit_depth) == 0) == 2


def test_a_restoration_that_finds_nothing_dead_is_an_event_too():
    run = Fit()
    assert run.step(0.5)["restored_channels"] == 0.0
    assert run.restoration.events[0]["restored"] == {}


@pytest.mark.slow
def test_the_draw_depends_on_the_seed():
    def revived(seed):
        run = Fit(seed=seed)
        kill(range(12))(run.model)
        run.step(0.0)
        return tuple(np.flatnonzero(np.asarray(run.model.get_layer("hidden").bit_depth)))

    assert revived(1) == revived(1)
    assert len({revived(seed) for seed in range(4)}) > 1


def test_a_drop_of_exactly_the_threshold_is_tolerated():
    run = Fit(accuracy=1.0, threshold=0.05)
    run.step(0.95)  # 1.0 - 0.95 is 0.050000000000000044
    assert run.event_steps == []
    run.step(0.949)
    assert run.event_steps == [2]


def test_patience_waits_for_checks_in_a_row():
    run = Fit(patience=3, cooldown=0)
    for accuracy in (0.5, 0.5, 1.0, 0.5, 0.5):
        run.step(accuracy)
    assert run.event_steps == []
    run.step(0.5)
    assert run.event_steps == [6]


@pytest.mark.parametrize(("cooldown", "expected"), [(0, [1, 2, 3, 4, 5, 6]), (1, [1, 3, 5]), (2, [1, 4])])
def test_cooldown_leaves_checks_alone(cooldown, expected):
    run = Fit(cooldown=cooldown)
    for _ in range(6):
        run.step(0.5)
    assert run.event_steps == expected


def test_nothing_happens_between_checks():
    run = Fit()
    run.step(0.5)
    for _ in range(3):
        run.restoration.on_train_batch_end(0, {})  # the monitor has not checked again
    assert run.event_steps == [1]


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": -0.01},
        {"threshold": 1.1},
        {"threshold": math.nan},
        {"restore_fraction": -0.1},
        {"restore_fraction": 1.5},
        {"restore_bits": 0},
        {"restore_bits": math.nan},
        {"restore_bits": math.inf},
        {"patience": 0},
        {"patience": 1.5},
        {"cooldown": -1},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        KernelRestoration(SafetyMonitor(toy.safety_set()), **settings)


def test_a_loop_of_ones_own_lists_the_monitor_before():
    monitor = SafetyMonitor(toy.safety_set())
    callbacks = keras.callbacks.CallbackList([KernelRestoration(monitor), monitor], model=toy.compressed())
    with pytest.raises(ValueError, match="listed before KernelRestoration"):
        callbacks.on_train_begin()


def test_a_plain_model_is_refused():
    model = toy.dense_net()
    model.compile("sgd", toy.cross_entropy(), run_eagerly=True)
    monitor = SafetyMonitor(toy.safety_set())
    with pytest.raises(ValueError, match=r"which has a gamma, for KernelRestoration\. Received: model="):
        model.fit(*toy.points(), verbose=0, callbacks=[monitor, KernelRestoration(monitor)])


@pytest.mark.slow
def test_a_monitor_of_an_interrupted_fit_begins_anew():
    def interrupt(*_):
        raise KeyboardInterrupt

    model, monitor = toy.compressed(), SafetyMonitor(toy.safety_set())
    with pytest.raises(KeyboardInterrupt):
        stop = keras.callbacks.LambdaCallback(on_epoch_end=interrupt)
        model.fit(*toy.points(), verbose=0, callbacks=[monitor, stop])
    model.fit(*toy.points(), verbose=0, callbacks=[KernelRestoration(monitor)])
    assert [check["step"] for check in monitor.history][:2] == [2, 4]
