import keras
import numpy as np
import pytest
import toy_problem as toy
from scripted_fit import AtStep, kill

import scc_tf
from scc_tf.callbacks import BackupAndRestore, ChannelRemoval, KernelRestoration, SafetyMonitor


def frozen_formats(**settings):
    """Bits move only where a test moves them."""
    return toy.compressed(format_optimizer=keras.optimizers.SGD(0.0), **settings)


def fit(model, *callbacks, epochs=2, **settings):
    inputs, labels = toy.points()
    return model.fit(inputs, labels, batch_size=8, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks)


@pytest.mark.slow
def test_a_channel_goes_at_the_second_look_without_bits():
    model = frozen_formats()
    removal = ChannelRemoval(every=2)
    history = fit(model, AtStep(3, kill([1, 5, 7])), removal)
    channels = {entry["step"]: entry["channels"] for entry in removal.history}
    assert channels == {0: 15, 2: 15, 4: 15, 6: 12, 8: 12, 10: 12, 12: 12}
    assert model.get_layer("hidden").units == 9
    assert [report.removed for report in removal.reports] == [3]
    assert history.history["channels"] == [12.0, 12.0]
    assert history.history["parameters"][-1] == model.count_params()
    assert history.history["step_ms"][-1] > 0
    assert np.isnan(removal.history[0]["step_ms"])


@pytest.mark.slow
def test_a_channel_that_gets_bits_back_in_between_stays():
    def revive(model):
        bits = model.get_layer("hidden").bit_depth
        bits.assign(np.maximum(bits, 2.0))

    model = frozen_formats()
    removal = ChannelRemoval(every=2)
    fit(model, AtStep(3, kill([1])), AtStep(5, revive), AtStep(7, kill([1])), AtStep(9, revive), removal)
    assert removal.reports == []
    assert model.get_layer("hidden").units == 12


@pytest.mark.slow
def test_nothing_is_cut_for_less_than_the_share_that_is_worth_it():
    model = frozen_formats()
    removal = ChannelRemoval(every=2, min_share=0.2)
    fit(model, AtStep(1, kill([0])), AtStep(5, kill([0, 1, 2])), removal)
    assert [report.removed for report in removal.reports] == [3]
    assert removal.history[4]["channels"] == 12  # step 8: one channel of 12 was not enough, three are


@pytest.mark.slow
def test_the_last_weights_are_looked_at_too():
    model = frozen_formats()
    fit(model, AtStep(5, kill([0])), ChannelRemoval(every=6))
    assert model.get_layer("hidden").units == 11


@pytest.mark.slow
def test_only_what_passed_the_safety_check_is_cut_and_is_then_what_to_go_back_to():
    model = frozen_formats()
    monitor = SafetyMonitor(toy.safety_set(), every=2, reference_accuracy=1.0)
    accuracies = iter([1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 0.2, 0.2, 0.2])
    monitor.safety_accuracy = lambda: next(accuracies)
    restoration = KernelRestoration(monitor, 0.1, restore_fraction=0.0)
    removal = ChannelRemoval(every=2)
    fit(model, monitor, restoration, AtStep(1, kill([0, 1])), removal)
    assert {e["step"]: e["channels"] for e in removal.history}[6] == 15  # steps 4 and 6: beyond the threshold
    assert {e["step"]: e["channels"] for e in removal.history}[8] == 13
    assert restoration.safe_step == 10
    assert restoration.reverted
    assert model.get_layer("hidden").units == 10


@pytest.mark.parametrize("settings", [{"every": 0}, {"min_share": -0.1}, {"min_share": 1.1}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="Expected"):
        ChannelRemoval(**settings)


def entropy_model():
    """Codes change only where a test changes them."""
    model = scc_tf.self_compress(toy.dense_net(), 5, exponent_per="kernel", bias_exponent=-12)
    sgd = keras.optimizers.SGD
    model.compile(
        sgd(0.0), toy.cross_entropy(), size_model="entropy", format_optimizer=sgd(0.0), gamma=0.1, run_eagerly=True
    )
    return model


def empty(channels):
    """Weights that round to zero; the bit depth stays."""

    def action(model):
        kernel = model.get_layer("hidden").kernel
        kernel.assign(np.where(np.isin(np.arange(kernel.shape[1]), channels), 1e-6, kernel))

    return action


@pytest.mark.slow
def test_with_entropy_a_channel_goes_at_the_second_look_without_codes():
    model, x = entropy_model(), toy.points()[0]
    removal, outputs = ChannelRemoval(every=2), {}
    record = [AtStep(step, lambda model, step=step: outputs.update({step: np.asarray(model(x))})) for step in (4, 7)]
    fit(model, AtStep(3, empty([1, 5, 7])), record[0], removal, record[1])
    channels = {entry["step"]: entry["channels"] for entry in removal.history}
    assert channels == {0: 15, 2: 15, 4: 15, 6: 12, 8: 12, 10: 12, 12: 12}
    assert model.get_layer("hidden").units == 9
    assert model.size_model == "entropy"
    np.testing.assert_allclose(outputs[7], outputs[4], atol=2.0**-12)


@pytest.mark.slow
def test_with_entropy_what_is_not_cut_yet_may_come_back():
    model = entropy_model()
    hidden = model.get_layer("hidden")
    kernel = np.asarray(hidden.kernel)
    removal = ChannelRemoval(every=2, min_share=0.2)
    back = AtStep(7, lambda model: hidden.kernel.assign(kernel))
    fit(model, AtStep(1, empty([0])), back, removal)
    assert removal.reports == []
    assert (np.asarray(hidden.bit_depth) > 0).all()
    np.testing.assert_array_equal(np.asarray(hidden.codes()).any(axis=0), True)


@pytest.mark.slow
def test_a_safe_state_of_before_a_cut_is_gone_back_to_also_after_an_interruption(tmp_path):
    def interrupt(model):
        raise KeyboardInterrupt

    def run(*last):
        model = frozen_formats()
        monitor = SafetyMonitor(toy.safety_set(), every=2, reference_accuracy=1.0)
        monitor.safety_accuracy = lambda: 1.0 if monitor.step < 5 else 0.2
        restoration = KernelRestoration(monitor, 0.1, restore_fraction=0.0)
        cut = AtStep(5, lambda model: model.remove_dead_channels())  # by somebody who asks nobody
        fit(model, AtStep(3, kill([1, 5])), monitor, restoration, cut, *last, BackupAndRestore(tmp_path))
        return model, restoration

    with pytest.raises(KeyboardInterrupt):
        run(AtStep(11, interrupt))
    model, restoration = run()
    assert (restoration.reverted, restoration.safe_step) == (True, 4)
    assert model.get_layer("hidden").units == 12
