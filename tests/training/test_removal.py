"""Channels that are removed from the very model that is being trained."""

import types

import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.optimizer_state import optimizer_slots


def network(**settings):
    model = scc_tf.self_compress(
        keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Conv2D(6, 3, name="a", activation="relu", use_bias=False),
                keras.layers.BatchNormalization(center=False, scale=False),
                keras.layers.Conv2D(5, 3, name="b", activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(3, name="c"),
            ]
        )
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"], gamma=0.02, **settings)
    return model


def data(count=48):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    return rng.normal(size=(count, 6, 6, 1)).astype("float32") + labels[:, None, None, None], labels


def kill(model, name, *channels):
    bits = model.get_layer(name).bit_depth.numpy()
    bits[list(channels)] = 0
    model.get_layer(name).bit_depth.assign(bits)


class At(keras.callbacks.Callback):
    """Does something to the model after one step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == self.step:
            self.result = self.action(self.model)


def kill_and_remove(model):
    kill(model, "a", 1, 4)
    kill(model, "b", 0)
    return model.remove_dead_channels()


@pytest.mark.slow
def test_fit_goes_on_with_the_smaller_network():
    images, labels = data()
    model = network()
    at = At(2, kill_and_remove)
    history = model.fit(images, labels, batch_size=8, epochs=2, verbose=0, callbacks=[at])
    assert at.result.channels == {"a": (6, 4), "b": (5, 4), "c": (3, 3)}
    assert model.get_layer("a").filters == 4
    assert model.get_layer("b").kernel.shape == (3, 3, 4, 4)
    assert model.optimizer.iterations == 12
    assert {tuple(w.shape) for layer in model.layers for w in layer.weights} == {tuple(w.shape) for w in model.weights}
    assert np.isfinite(history.history["loss"]).all()
    assert history.history["loss"][1] < history.history["loss"][0]
    assert model.predict(images, verbose=0).shape == (48, 3)


@pytest.mark.slow
def test_a_step_after_the_removal_is_the_step_that_the_big_network_would_take():
    """With plain SGD, and no size term, dead channels and their readers' weights do not matter."""
    images, labels = data(16)
    models = []
    for removes in (False, True):
        keras.utils.set_random_seed(3)
        model = network()
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            gamma=0.0,
            format_optimizer=keras.optimizers.SGD(0.0),
        )
        model.fit(images, labels, batch_size=16, verbose=0)
        kill(model, "a", 1, 4)
        if removes:
            model.remove_dead_channels()
        model.fit(images, labels, batch_size=16, epochs=2, verbose=0)
        models.append(model)
    big, small = models
    stays = [0, 2, 3, 5]
    np.testing.assert_allclose(small.get_layer("a").kernel, big.get_layer("a").kernel.numpy()[..., stays], atol=1e-5)
    np.testing.assert_allclose(small.get_layer("b").kernel, big.get_layer("b").kernel.numpy()[:, :, stays], atol=1e-5)
    np.testing.assert_allclose(small(images, training=True), big(images, training=True), atol=1e-4)


@pytest.mark.slow
def test_outputs_in_training_and_the_state_of_both_optimizers_are_kept():
    images, labels = data()
    model = network()
    model.fit(images, labels, batch_size=8, verbose=0)
    kill(model, "a", 1, 4)
    before = model(images, training=True).numpy()
    kernel = [slot.numpy() for slot in optimizer_slots(model.optimizer, model.get_layer("a").kernel)]
    bits = [slot.numpy() for slot in optimizer_slots(model.format_optimizer, model.get_layer("a").bit_depth)]
    report = model.remove_dead_channels()
    assert report.removed == 2
    np.testing.assert_allclose(model(images, training=True), before, atol=1e-5)
    assert len(kernel) == len(bits) == 2
    for old, new in zip(kernel, optimizer_slots(model.optimizer, model.get_layer("a").kernel), strict=True):
        np.testing.assert_array_equal(new, old[..., [0, 2, 3, 5]])
    for old, new in zip(bits, optimizer_slots(model.format_optimizer, model.get_layer("a").bit_depth), strict=True):
        np.testing.assert_array_equal(new, old[[0, 2, 3, 5]])
    assert model.format_optimizer.iterations == model.optimizer.iterations == 6


@pytest.mark.slow
def test_the_size_term_still_counts_from_the_starting_network():
    model = network()
    start = model.starting_weights
    before = float(model.size_term())
    kill(model, "a", 0, 1, 2)
    q = float(model.size_term())
    model.remove_dead_channels()
    assert model.starting_weights == start
    assert float(model.size_term()) == pytest.approx(q)
    assert q < before


@pytest.mark.slow
def test_channels_that_are_named_stay():
    model = network()
    kill(model, "a", 1, 4)
    report = model.remove_dead_channels({(model.get_layer("a"), "kernel"): np.arange(6) == 1})
    assert report.channels["a"] == (6, 5)
    assert np.asarray(model.get_layer("a").bit_depth).tolist().count(0) == 1


@pytest.mark.slow
def test_weights_that_only_round_to_zero_stay():
    model = network()
    layer = model.get_layer("a")
    layer.kernel.assign(layer.kernel * np.where(np.arange(6) == 2, 1e-9, 1))
    assert not np.asarray(layer.codes())[..., 2].any()
    assert model.remove_dead_channels() is None
    assert scc_tf.remove_dead_channels(model)[1].removed == 1


@pytest.mark.slow
@pytest.mark.parametrize("extension", ["weights.h5", "keras"])
def test_files_of_a_cut_model(tmp_path, extension):
    images, labels = data()
    model = network()
    model.fit(images, labels, batch_size=8, verbose=0)
    untouched = model.get_config()
    kill(model, "a", 1, 4)
    model.remove_dead_channels()
    kill(model, "b", 2)
    model.remove_dead_channels()
    path = tmp_path / f"model.{extension}"
    if extension == "keras":
        model.save(path)
        loaded = keras.saving.load_model(path)
    else:
        model.save_weights(path)
        loaded = scc_tf.SelfCompressingModel.from_config(untouched)
        loaded.compile("adam", model.loss)
        loaded.load_weights(path)
    np.testing.assert_array_equal(loaded(images), model(images))
    assert list(loaded.cuts) == list(model.cuts)
    assert len(model.cuts) == 2
    assert loaded.optimizer.iterations == model.optimizer.iterations
    loaded.fit(images, labels, batch_size=8, verbose=0)


@pytest.mark.slow
def test_a_copy_that_is_smaller_is_compiled_as_the_original():
    images, labels = data()
    safety = types.SimpleNamespace(images=images[:8], labels=labels[:8])
    model = network(lambda_safety=0.1, safety_set=safety, safety_batch_size=4)
    model.fit(images, labels, batch_size=8, verbose=0)
    kill(model, "a", 1, 4)
    smaller, report = scc_tf.remove_dead_channels(model)
    assert report.removed >= 2
    assert model.get_layer("a").filters == 6
    assert smaller.lambda_safety == 0.1
    assert smaller.optimizer.iterations == 6
    assert smaller.starting_weights == model.starting_weights
    assert "safety_loss" in smaller.fit(images, labels, batch_size=8, verbose=0).history
