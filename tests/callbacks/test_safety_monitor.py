from types import SimpleNamespace

import keras
import numpy as np
import pytest
import toy_problem as toy

from scc_tf.callbacks import SafetyMonitor


def scripted(accuracies, **settings):
    """A monitor that finds the given accuracies, of a model of unknown origin, and the drops that it reports."""
    monitor, model = SafetyMonitor(toy.safety_set(), every=1, **settings), toy.compressed()
    model.reference = None
    left = iter(accuracies)
    monitor.safety_accuracy = lambda: next(left)
    monitor.set_model(model)
    monitor.on_train_begin()
    for _ in accuracies[1:]:
        model.optimizer.iterations.assign_add(1)
        monitor.on_train_batch_end(0, {})
    return monitor, [check["safety_drop"] for check in monitor.history]


SLOW_DECAY = [0.9, 0.95, 0.94, 0.93, 0.92, 0.91, 0.90, 0.89]


def test_a_slow_decay_is_caught_by_the_best_so_far():
    monitor, drops = scripted(SLOW_DECAY, reference="best")
    np.testing.assert_allclose(drops, [0, 0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06], atol=1e-12)
    assert monitor.reference_accuracy == 0.95


def test_the_average_is_the_moving_average_of_all_checks_before():
    monitor, drops = scripted(SLOW_DECAY, reference="average", decay=0.5)
    average, expected = SLOW_DECAY[0], [0.0]
    for accuracy in SLOW_DECAY[1:]:
        expected.append(max(average - accuracy, 0.0))
        average = 0.5 * average + 0.5 * accuracy
    np.testing.assert_allclose(drops, expected, atol=1e-12)
    assert monitor.reference_accuracy == pytest.approx(average)


def test_there_is_no_reference_before_the_first_check():
    assert SafetyMonitor(toy.safety_set()).reference_accuracy == 0.0


def handed_in(right):
    """A network that is right on 12 examples or on none of them, and its self-compressing twin."""
    net, chosen = toy.dense_net(), toy.safety_set()
    net.get_layer("head").kernel.assign(np.zeros((12, 3)))
    chosen.labels[:] = 1
    net.get_layer("head").bias.assign([0.0, 1.0, 0.0] if right else [1.0, 0.0, 0.0])
    return net, chosen


@pytest.mark.parametrize("reference", ["best", "average"])
@pytest.mark.parametrize(
    ("handed_in", "accuracies", "drops"),
    [
        (1.0, [0.5, 0.7, 0.6], [0.5, 0.3, 0.4]),
        (0.5, [0.4, 0.7, 0.6], [0.1, 0.0, 0.1]),  # training raises the reference
        (0.5, [0.9, 0.9, 0.6], [0.0, 0.0, 0.0]),  # new batch statistics, as training starts, do not
        (0.5, [0.8, 0.9, 0.3], [0.0, 0.0, 0.3]),
    ],
)
def test_the_reference_is_the_network_that_was_handed_in_and_what_training_gains(
    handed_in, accuracies, drops, reference
):
    settings = {"reference": reference, "decay": 0.0, "reference_accuracy": handed_in}
    np.testing.assert_allclose(scripted(accuracies, **settings)[1], drops, atol=1e-12)


@pytest.mark.parametrize(("right", "trained"), [(True, 1.0), (False, 0.0)])
def test_the_network_that_was_handed_in_is_scored_as_fit_begins(right, trained):
    net, chosen = handed_in(right)
    monitor = SafetyMonitor(chosen)
    monitor.set_model(toy.compressed(net))
    monitor.on_train_begin()
    assert monitor.trained_accuracy == trained


@pytest.mark.parametrize("cause", ["loaded", "trained on", "given"])
def test_where_the_network_is_not_known_the_start_is_the_reference_and_that_is_told(caplog, cause):
    net, chosen = handed_in(right=True)
    model = toy.compressed(net)
    if cause == "loaded":
        model.reference = None
    net.get_layer("head").bias.assign([0.0, 2.0, 0.0] if cause == "trained on" else [0.0, 1.0, 0.0])
    monitor = SafetyMonitor(chosen, reference_accuracy=0.8 if cause == "given" else None)
    monitor.safety_accuracy = lambda: 0.5
    monitor.set_model(model)
    monitor.on_train_begin()
    assert monitor.history[0]["safety_drop"] == pytest.approx(0.3 if cause == "given" else 0.0)
    assert ("reference_accuracy" in caplog.text) == (cause != "given")


@pytest.mark.parametrize(("batch_size", "column"), [(5, False), (5, True), (100, False)])
def test_the_accuracy_is_that_of_the_models_answers(batch_size, column):
    chosen, model = toy.safety_set(13), toy.compressed()
    expected = (np.asarray(model(chosen.images)).argmax(1) == chosen.labels).mean()
    assert 0 < expected < 1
    labels = chosen.labels[:, None] if column else chosen.labels
    monitor = SafetyMonitor(SimpleNamespace(images=chosen.images, labels=labels), batch_size=batch_size)
    monitor.set_model(model)
    assert monitor.safety_accuracy() == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("reestimate", [True, False])
def test_batch_statistics_are_reestimated_before_each_check_if_images_are_given(reestimate):
    model, (x, _) = toy.compressed(toy.conv_net()), toy.images(20)
    monitor = SafetyMonitor(toy.safety_set(of=toy.images), statistics_images=x if reestimate else None)
    monitor.set_model(model)
    norm = model.get_layer("norm")
    norm.moving_variance.assign(np.full(6, 1e6))
    monitor.on_train_begin()
    if reestimate:
        np.testing.assert_allclose(model(x, training=False), model(x, training=True), atol=1e-4)
    else:
        assert float(norm.moving_variance[0]) == 1e6


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "warns"), [({}, True), ({"frozen": True}, False), ({"given": True}, False)])
def test_running_batch_statistics_are_warned_of_once(caplog, settings, warns):
    x, y = toy.images(16)
    model = toy.compressed(toy.conv_net())
    model.get_layer("norm").trainable = "frozen" not in settings
    monitor = SafetyMonitor(toy.safety_set(of=toy.images), 1, statistics_images=x if "given" in settings else None)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[monitor])
    assert caplog.text.count("statistics_images") == warns


@pytest.mark.slow
def test_a_fit_checks_at_the_start_every_n_steps_and_at_the_end_and_logs_floats():
    model = toy.compressed()
    monitor = SafetyMonitor(toy.safety_set(), every=2)
    history = model.fit(*toy.points(40), batch_size=16, epochs=1, verbose=0, callbacks=[monitor]).history
    assert [check["step"] for check in monitor.history] == [0, 2, 3]
    assert all(isinstance(value, float) for name in monitor.logged for value in history[name])
    assert history["safety_accuracy"][-1] == monitor.history[1]["safety_accuracy"]


@pytest.mark.slow
def test_weights_that_another_callback_changed_at_the_end_are_checked():
    model = toy.compressed(metrics=["accuracy"])
    monitor = SafetyMonitor(toy.safety_set(), every=1)
    accuracies = iter([0.9, 0.8, 0.5])
    monitor.safety_accuracy = lambda: next(accuracies)
    zero = keras.callbacks.LambdaCallback(
        on_train_end=lambda logs: model.get_layer("head").kernel.assign(np.zeros((12, 3)))
    )
    model.fit(*toy.points(), batch_size=48, verbose=0, callbacks=[monitor, zero])
    assert [(check["step"], check["safety_accuracy"]) for check in monitor.history] == [(0, 0.9), (1, 0.8), (1, 0.5)]


@pytest.mark.parametrize(
    "examples",
    [
        SimpleNamespace(images=np.zeros((0, 8)), labels=np.zeros(0, int)),
        SimpleNamespace(images=np.zeros((2, 8)), labels=np.zeros(3, int)),
    ],
)
def test_an_empty_or_inconsistent_safety_set_is_refused(examples):
    with pytest.raises(ValueError, match="images, "):
        SafetyMonitor(examples)


@pytest.mark.parametrize(
    "settings",
    [
        {"every": 0},
        {"every": 1.5},
        {"reference": "worst"},
        {"decay": 1.0},
        {"decay": -0.1},
        {"decay": float("nan")},
        {"reference_accuracy": 1.1},
        {"batch_size": 0},
        {"statistics_images": "x"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        SafetyMonitor(toy.safety_set(), **settings)


@pytest.mark.parametrize(
    ("activation", "message"), [("relu", "output_shape="), ("sigmoid", "from 0 to 1.*from 0 to 2")]
)
def test_a_model_with_one_output_that_cannot_be_scored_is_refused(activation, message):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, activation=activation)])
    monitor = SafetyMonitor(toy.safety_set())
    monitor.set_model(model)
    with pytest.raises(ValueError, match=message):
        monitor.safety_accuracy()
