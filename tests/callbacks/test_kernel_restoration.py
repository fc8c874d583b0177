import logging
import math

import keras
import numpy as np
import pytest
import toy_problem as toy

from scc_tf.callbacks import GammaScheduler, KernelRestoration, SafetyMonitor
from scc_tf.training import optimizer_slots


class AtStep(keras.callbacks.Callback):
    """Does something to the model once, after a given step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            self.action(self.model)


def kill(channels, name="hidden"):
    def action(model):
        bits = model.get_layer(name).bit_depth
        bits.assign(np.where(np.isin(np.arange(bits.shape[0]), channels), 0.0, bits))

    return action


class Fit:
    """What fit does to the two callbacks, with scripted safety accuracies; ``step`` is one training step."""

    def __init__(self, accuracy=1.0, model=None, momentum=True, **settings):
        self.model = model or toy.compressed(
            optimizer=keras.optimizers.Adam(0.01), format_optimizer=keras.optimizers.SGD(0.1, momentum=0.9)
        )
        if momentum:
            for optimizer in (self.model.optimizer, self.model.format_optimizer):
                for variable in optimizer._trainable_variables:
                    for slot in optimizer_slots(optimizer, variable):
                        slot.assign(np.ones(slot.shape))
        self.monitor = SafetyMonitor(toy.safety_set(), every=1, backup_dir=settings.get("backup_dir"))
        self.monitor.safety_accuracy = lambda: self.accuracy
        self.restoration = KernelRestoration(self.monitor, **settings)
        self.accuracy = accuracy
        for callback in (self.monitor, self.restoration):
            callback.set_model(self.model)
        self.each("on_train_begin")

    def each(self, method, *arguments):
        for callback in (self.monitor, self.restoration):
            getattr(callback, method)(*arguments)

    def step(self, accuracy):
        self.accuracy = accuracy
        self.model.optimizer.iterations.assign_add(1)
        logs = {}
        self.each("on_train_batch_end", 0, logs)
        return logs

    def end(self):
        self.each("on_train_end")

    @property
    def event_steps(self):
        return [event["step"] for event in self.restoration.events]


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
    assert len(revived) == math.ceil(fraction * dead) == logs["restored_kernels"]
    assert isinstance(logs["restored_kernels"], float)
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
    assert run.step(0.5)["restored_kernels"] == 0.0
    assert run.restoration.events[0]["restored"] == {}


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
    assert monitor.history[-1]["safety_accuracy"] < 0.7  # it did collapse
    reached = monitor.safety_accuracy()
    assert reached >= monitor.reference_accuracy - 0.05 >= 0.8
    assert restoration.reverted
    assert 0 < restoration.safe_step <= 24
    assert "Went back to step" in caplog.text
    assert bool(restoration.events) == (fraction > 0)


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


# Interruptions -------------------------------------------------------------------------------------------------------


class InterruptedError_(Exception):
    pass


def interrupt(model):
    raise InterruptedError_


def training(folder, interruption=None):
    """Collapses at step 8 (and is restored), is crushed by gamma from step 13 on, so that it must be reverted."""
    model = toy.compressed(
        optimizer=keras.optimizers.Adam(0.05),
        gamma=0.0,
        format_optimizer=keras.optimizers.Adam(3.0, epsilon=1e-3),
        run_eagerly=False,
        jit_compile=False,
    )
    monitor = SafetyMonitor(toy.safety_set(30), every=2, backup_dir=folder / "safety")
    restoration = KernelRestoration(monitor, threshold=0.2, backup_dir=folder / "safety")
    callbacks = [
        keras.callbacks.BackupAndRestore(folder / "keras"),
        GammaScheduler(lambda step: 0.0 if step < 13 else 1e3),
        AtStep(8, kill(range(12))),
        monitor,
        restoration,
    ]
    if interruption:
        callbacks.append(AtStep(interruption, interrupt))
    x, y = toy.points()
    model.fit(x, y, batch_size=16, epochs=6, shuffle=False, verbose=0, callbacks=callbacks)
    return model, monitor, restoration


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_an_interrupted_fit_goes_on_as_if_nothing_had_happened(tmp_path):
    whole_model, whole_monitor, whole = training(tmp_path / "whole")
    assert whole.reverted and whole.events[0]["step"] == 8
    folder = tmp_path / "interrupted"
    with pytest.raises(InterruptedError_):
        training(folder, interruption=17)  # the weights are those of step 15, the state that of step 16
    assert {"safety_monitor.json", "kernel_restoration.npz", "latest.weights.h5"} <= set(files(folder))
    model, monitor, restoration = training(folder)
    assert [check["step"] for check in monitor.history] == [check["step"] for check in whole_monitor.history]
    for name in monitor.names:
        np.testing.assert_allclose(
            [check[name] for check in monitor.history], [check[name] for check in whole_monitor.history], atol=1e-6
        )
    assert restoration.events == whole.events
    assert (restoration.safe_step, restoration.reverted) == (whole.safe_step, True)
    assert restoration.safe_step < 15  # so the safe weights come from the file
    toy.assert_same(model.get_weights(), whole_model.get_weights(), atol=1e-5)
    assert files(folder) == []


def test_a_stale_backup_does_not_reach_a_fresh_model(tmp_path):
    old = Fit(accuracy=0.9, backup_dir=tmp_path)
    old.step(0.5)
    new = Fit(accuracy=0.4, backup_dir=tmp_path)
    assert new.event_steps == []
    assert new.restoration.safe_step == 0
    assert new.monitor.reference_accuracy == 0.4


def interrupted(folder):
    """A model at step 2, and the files of a run that was interrupted there."""
    run = Fit(accuracy=0.9, backup_dir=folder)
    kill([0, 1])(run.model)
    run.step(0.9)
    run.step(0.5)
    assert files(folder) == ["kernel_restoration.npz", "safety_monitor.json"]
    return run


def test_state_is_taken_up_from_the_backup(tmp_path):
    run = interrupted(tmp_path)
    again = Fit(accuracy=0.4, model=run.model, backup_dir=tmp_path)
    assert again.restoration.events == run.restoration.events != []
    assert again.restoration.safe_step == 1
    again.end()
    toy.assert_same(run.model.get_weights(), run.restoration._safe_weights)
    assert files(tmp_path) == []


def test_events_after_the_restored_step_are_forgotten(tmp_path):
    run = interrupted(tmp_path)
    assert run.event_steps == [2]
    run.model.optimizer.iterations.assign(1)  # the weights that were saved are older
    again = Fit(accuracy=0.9, model=run.model, backup_dir=tmp_path)
    assert again.event_steps == []
    again.step(0.5)
    assert again.event_steps == [2]


def npz_of_another_model(path):
    content = dict(np.load(path))
    np.savez(path, **{**content, "arr_0": np.zeros((2, 2))})


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(500)),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:100] + b"\xff\xff" + path.read_bytes()[102:]),
    "other keys": lambda path: np.savez(path, something=1),
    "other model": npz_of_another_model,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_backup_is_dropped_with_a_warning(tmp_path, caplog, damage):
    run = interrupted(tmp_path)
    DAMAGE[damage](tmp_path / "kernel_restoration.npz")
    again = Fit(accuracy=0.88, model=run.model, backup_dir=tmp_path)
    assert "kernel_restoration.npz is damaged and was dropped" in caplog.text
    again.step(0.88)
    again.end()
    assert not again.restoration.reverted
    assert files(tmp_path) == []


def test_where_no_safe_state_is_left_a_warning_says_so(tmp_path, caplog):
    run = interrupted(tmp_path)
    (tmp_path / "kernel_restoration.npz").write_bytes(b"")
    again = Fit(accuracy=0.5, model=run.model, backup_dir=tmp_path)  # the monitor knows of the 0.9
    last = run.model.get_weights()
    again.end()
    toy.assert_same(run.model.get_weights(), last)
    assert not again.restoration.reverted
    assert "No state that satisfied it is left" in caplog.text


def test_both_backups_damaged_start_afresh(tmp_path, caplog):
    run = interrupted(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"\x00")
    again = Fit(accuracy=0.5, model=run.model, backup_dir=tmp_path)
    assert caplog.text.count("damaged and was dropped") == 2
    assert (again.monitor.reference_accuracy, again.restoration.safe_step) == (0.5, 2)


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
        {"cooldown": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        KernelRestoration(SafetyMonitor(toy.safety_set()), **settings)


@pytest.mark.parametrize("listed", ["not at all", "after"])
def test_the_monitor_must_be_listed_before(listed):
    monitor = SafetyMonitor(toy.safety_set())
    callbacks = [KernelRestoration(monitor)] + ([monitor] if listed == "after" else [])
    with pytest.raises(ValueError, match="listed before KernelRestoration"):
        toy.compressed().fit(*toy.points(), verbose=0, callbacks=callbacks)
