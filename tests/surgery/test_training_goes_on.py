"""A compiled stock model that loses channels: its training goes on as if they had been zeros all along."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers, optimizers

import scc_tf
from scc_tf.optimizer_state import optimizer_slots

A, B = zoo.mask("101101"), zoo.mask("01011")
KEPT = {"a": A, "b": B}


def network(**settings):
    relu = {"activation": "relu"}
    stack = [
        layers.Conv2D(6, 3, name="a", **relu),
        layers.BatchNormalization(center=False, name="norm"),
        layers.Conv2D(5, 3, name="b", **relu),
        layers.Flatten(),
        layers.Dense(3, name="c"),
    ]
    model = keras.Sequential([keras.Input((6, 6, 2)), *stack])
    if settings:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, metrics=["accuracy"], run_eagerly=True, **settings)
    return model


def step(model, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(12) % 3
    return model.train_on_batch(rng.normal(size=(12, 6, 6, 2)) + labels[:, None, None, None], labels, return_dict=True)


def cut(variable, values):
    """The part of an array of a variable of `network` that belongs to the channels of `KEPT`."""
    layer, name = variable.path.split("/")[-2:]
    values = np.asarray(values)
    if (layer, name) == ("a", "kernel"):
        return values[..., A]
    if (layer, name) == ("b", "kernel"):
        return values[:, :, A][..., B]
    if (layer, name) == ("c", "kernel"):
        return values.reshape(4, 5, 3)[:, B].reshape(-1, 3)
    return values[{"a": A, "norm": A, "b": B, "c": slice(None)}[layer]]


def without_the_others(model):
    zoo.without(model, KEPT)
    for layer, weight, kept in (("a", "bias", A), ("b", "bias", B), ("norm", "moving_mean", A)):
        variable = getattr(model.get_layer(layer), weight)
        variable.assign(np.where(kept, np.asarray(variable), 0))
    return model


OPTIMIZERS = {
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True, clipnorm=0.5),
    "Adam": lambda: optimizers.Adam(0.01, amsgrad=True, global_clipnorm=1.0),
    "AdamW": lambda: optimizers.AdamW(optimizers.schedules.ExponentialDecay(0.01, 2, 0.5), weight_decay=0.1),
    "RMSprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "average": lambda: optimizers.SGD(0.05, use_ema=True, ema_overwrite_frequency=4),
    "loss scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.01), initial_scale=64.0, dynamic_growth_steps=3
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_steps_are_those_of_the_zeroed_model(name):
    model = network(optimizer=OPTIMIZERS[name]())
    for i in range(3):
        step(model, i)
    smaller, report = scc_tf.remove_channels(without_the_others(model), KEPT)
    assert zoo.left(report) == {"a": 4, "b": 3, "c": 3}
    old, new = model.optimizer, smaller.optimizer
    assert type(new) is type(old)
    assert new.get_config() == old.get_config()
    assert int(new.iterations) == int(old.iterations) == (1 if name == "accumulation" else 3)
    assert float(new.learning_rate) == float(old.learning_rate)
    for before, after in zip(model.trainable_variables, smaller.trainable_variables, strict=True):
        slots = [optimizer_slots(o, v) for o, v in ((old, before), (new, after))]
        assert len(slots[0]) == {"Adam": 3, "RMSprop": 3, "accumulation": 3}.get(name, len(slots[0]))
        for one, other in zip(*slots, strict=True):
            np.testing.assert_array_equal(other, cut(before, one))
    logs, expected = step(smaller, 4), step(model, 4)
    np.testing.assert_allclose(logs["accuracy"], 1 / 3, atol=0.67)  # its metrics start anew
    for before, after in zip(model.weights, smaller.weights, strict=True):
        np.testing.assert_allclose(after, cut(before, before), rtol=1e-4, atol=1e-6, err_msg=before.path)
    assert set(logs) == set(expected)


@pytest.mark.slow
def test_a_learning_rate_that_was_set_by_hand():
    model = network(optimizer=optimizers.Adam(0.01))
    step(model)
    model.optimizer.learning_rate = 0.003
    smaller, _ = scc_tf.remove_channels(model, KEPT)
    assert float(smaller.optimizer.learning_rate) == pytest.approx(0.003)
    smaller.optimizer.learning_rate = 0.1  # their own variables
    assert float(model.optimizer.learning_rate) == pytest.approx(0.003)
    step(smaller)
    assert int(model.optimizer.iterations) == 1


@pytest.fixture
def half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.usefixtures("half_precision")
def test_half_precision_scales_the_loss():
    model = network(optimizer=optimizers.Adam(0.01))
    step(model)
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
    smaller, _ = scc_tf.remove_channels(without_the_others(model), KEPT)
    assert isinstance(smaller.optimizer, optimizers.LossScaleOptimizer)
    assert isinstance(smaller.optimizer.inner_optimizer, optimizers.Adam)
    assert float(smaller.optimizer.dynamic_scale) == float(model.optimizer.dynamic_scale)
    slots = optimizer_slots(smaller.optimizer, smaller.get_layer("b").kernel)
    old = optimizer_slots(model.optimizer, model.get_layer("b").kernel)
    for one, other in zip(old, slots, strict=True):
        np.testing.assert_array_equal(other, cut(model.get_layer("b").kernel, one))
    step(smaller)


@pytest.mark.slow
def test_what_is_frozen_stays_frozen():
    model = network()
    model.get_layer("a").trainable = False
    model.compile(optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", run_eagerly=True)
    step(model)
    smaller, _ = scc_tf.remove_channels(without_the_others(model), KEPT)
    kernel = np.asarray(smaller.get_layer("a").kernel).copy()
    step(smaller)
    np.testing.assert_array_equal(smaller.get_layer("a").kernel, kernel)
    assert optimizer_slots(smaller.optimizer, smaller.get_layer("a").kernel) == []


def test_a_bias_that_is_added_is_trained():
    stack = [layers.Dense(4, name="a", activation="sigmoid"), layers.Dense(3, name="b", use_bias=False)]
    model = keras.Sequential([keras.Input((5,)), *stack])
    model.compile(optimizers.Adam(0.01), "mse", run_eagerly=True)
    x, y = np.ones((2, 5), "float32"), np.ones((2, 3), "float32")
    model.train_on_batch(x, y)
    smaller, report = scc_tf.remove_channels(model, {"a": zoo.mask("0111")})
    assert report.biases_added == ("b",)
    bias = smaller.get_layer("b").bias
    before = np.asarray(bias).copy()
    slots = optimizer_slots(smaller.optimizer, bias)
    assert len(slots) == 2
    assert not any(np.any(slot) for slot in slots)
    smaller.train_on_batch(x, y)
    assert np.all(np.asarray(bias) != before)


@pytest.mark.slow
def test_the_original_goes_on_as_well():
    model, twin = network(optimizer="adam"), network(optimizer="adam")
    twin.set_weights(model.get_weights())
    for i in range(2):
        step(model, i)
        step(twin, i)
        scc_tf.remove_channels(model, KEPT)
    step(model, 2)
    step(twin, 2)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_before_the_first_step():
    smaller, _ = scc_tf.remove_channels(network(optimizer="sgd"), KEPT)
    assert smaller.compiled
    assert int(smaller.optimizer.iterations) == 0
    assert set(step(smaller)) == {"loss", "accuracy"}


def test_what_is_not_compiled_stays_so():
    assert not scc_tf.remove_channels(network(), KEPT)[0].compiled
    assert not scc_tf.remove_dead_channels(network())[0].compiled


@pytest.mark.slow
def test_dead_channels_of_a_compiled_model():
    model = network(optimizer=OPTIMIZERS["momentum"]())
    step(model)
    smaller, report = scc_tf.remove_dead_channels(without_the_others(model))
    assert zoo.left(report) == {"a": 4, "b": 3, "c": 3}
    step(model, 1)
    step(smaller, 1)
    for before, after in zip(model.weights, smaller.weights, strict=True):
        np.testing.assert_allclose(after, cut(before, before), rtol=1e-4, atol=1e-6, err_msg=before.path)


def unnamed_loss(y_true, y_pred):
    return keras.ops.mean((y_true - y_pred) ** 2, axis=-1)


def test_a_loss_that_keras_cannot_store_leaves_the_result_uncompiled():
    model = network()
    model.compile("sgd", unnamed_loss)
    smaller, report = scc_tf.remove_channels(model, KEPT)
    assert not smaller.compiled
    assert report.removed == 4
