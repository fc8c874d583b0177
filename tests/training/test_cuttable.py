"""Channels go and come back in the middle of anything, and nothing else changes."""

import copy
import gc
import pickle
import sys
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_problem as toy

import scc_tf

sys.path.append(str(Path(__file__).parents[1] / "surgery"))
import zoo

Dense, SGD, Adam = keras.layers.Dense, keras.optimizers.SGD, keras.optimizers.Adam
STEPS = 4  # of an epoch
X, Y = toy.points(8 * STEPS)
SILENT = (0, 1, 2, 3, 5)  # hidden channels that make no difference to any answer


def network(net=None, **settings):
    """A network that nothing but a cut changes."""
    still = {"optimizer": SGD(0.0), "format_optimizer": SGD(0.0), "gamma": 0.0}
    model = toy.compressed(net, **{**still, **settings})
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.where(np.isin(np.arange(12), SILENT), 0.0, kernel))
    return model


def cut(model, *channels):
    """Channels of the layer as it is now."""
    bits = model.get_layer("hidden").bit_depth
    bits.assign(np.where(np.isin(np.arange(bits.shape[0]), channels), 0.0, bits))
    return model.remove_dead_channels()


class At(keras.callbacks.Callback):
    """Does something to the model after a number of its batches, or of its epochs."""

    def __init__(self, batches=(), epochs=()):
        super().__init__()
        self.batches, self.epochs, self.count = dict(batches), dict(epochs), 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count in self.batches:
            self.batches[self.count](self.model)

    def on_epoch_end(self, epoch, logs=None):
        if epoch in self.epochs:
            self.epochs[epoch](self.model)


def fit(model, *callbacks, epochs=2, **settings):
    settings = {"x": X, "y": Y, "batch_size": 8, "shuffle": False, "verbose": 0, **settings}
    return model.fit(epochs=epochs, callbacks=list(callbacks), **settings).history


def of_answers(history):
    return [(key, values) for key, values in history.items() if key != "bits_per_weight"]


# Nothing that Keras keeps is lost ------------------------------------------------------------------------------------


def two_outputs():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = Dense(12, "relu", name="hidden")(inputs)
    return keras.Model(inputs, {"one": Dense(3, name="one")(hidden), "two": Dense(1, name="two")(hidden)})


def of_two_outputs():
    loss = {"one": toy.cross_entropy(), "two": "mse"}
    return network(two_outputs(), loss=loss, metrics={"one": ["accuracy"], "two": ["mae", "mse"]})


WEIGHTS = np.linspace(0.5, 2.0, len(Y)).astype("float32")
FITS = {  # how to compile, how to fit, executions of an epoch
    "metrics": (lambda: network(metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)]), {}, 4),
    "validation": (lambda: network(metrics=["accuracy"]), {"validation_data": (X[:8], Y[:8])}, 4),
    "weights": (
        lambda: network(metrics=["accuracy"], weighted_metrics=["accuracy"]),
        {"sample_weight": WEIGHTS},
        4,
    ),
    "executions": (lambda: network(metrics=["accuracy"], run_eagerly=False, steps_per_execution=2), {}, 2),
    "outputs": (of_two_outputs, {"y": {"one": Y, "two": Y.astype("float32")}, "validation_split": 0.25}, 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_the_logs_of_a_fit_are_those_without_a_cut(name):
    """Channels go on the first batch, on the last one of the epoch, right after it, and when the epoch ends."""
    make, data, steps = FITS[name]
    expected = fit(make(), **data)
    model = make()
    kept = ("_compile_metrics", "_compile_loss", "_loss_tracker", "optimizer", "format_optimizer", "gamma")
    before = {part: getattr(model, part) for part in kept}
    cuts = At({1: lambda m: cut(m, 0), steps: lambda m: cut(m, 0, 1), steps + 1: lambda m: cut(m, 0)})
    history = fit(model, cuts, At(epochs={1: lambda m: cut(m, 1)}), **data)
    assert model.get_layer("hidden").units == 12 - len(SILENT)
    assert history.keys() == expected.keys()
    for key, values in of_answers(expected):
        np.testing.assert_allclose(history[key], values, rtol=1e-5, err_msg=key)
    assert all(getattr(model, part) is before[part] for part in kept)
    assert scc_tf.finish(model, X).count_params() > 0


@pytest.mark.slow
def test_a_fit_that_is_told_to_stop_stops():
    model = network()

    def stop(model):
        model.stop_training = True
        cut(model, 0)

    assert len(fit(model, At({2: stop}), epochs=3)["loss"]) == 1


def test_a_cut_before_compile_counts_from_the_network_that_it_was():
    model = scc_tf.self_compress(toy.dense_net())
    assert cut(model, 0, 1).removed == 2
    model.compile("sgd", toy.cross_entropy(), run_eagerly=True)
    assert model.starting_weights == 8 * 12 + 12 * 3
    model.train_on_batch(X[:8], Y[:8])


def test_what_is_cut_off_is_free():
    """Neither the model nor its optimizers keep the larger network alive, in whatever they track for saving."""
    model = network()
    model.train_on_batch(X[:8], Y[:8])
    old = [weakref.ref(layer) for layer in model.layers]
    cut(model, 0, 1)
    gc.collect()
    assert not any(layer() for layer in old)
    model.train_on_batch(X[:8], Y[:8])


@pytest.mark.slow
def test_a_cut_network_is_exported(tmp_path):
    model = network(run_eagerly=False)
    cut(model, 0, 1)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(X[:4]), model(X[:4]), atol=1e-6)


class Noisy(keras.layers.Layer):
    """Draws random numbers, and keeps a metric of its own."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.generator = keras.random.SeedGenerator(1)
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, inputs):
        self.seen.update_state(keras.ops.mean(inputs))
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.generator)


@pytest.mark.slow
def test_random_numbers_and_metrics_of_layers_go_on():
    histories = []
    for batches in ({}, {2: lambda m: cut(m, 0, 1), 4: lambda m: cut(m, 0)}):
        keras.utils.set_random_seed(0)
        stack = [Dense(12, "relu", name="hidden"), Dense(3), keras.layers.Dropout(0.5, seed=1), Noisy()]
        histories.append(fit(network(keras.Sequential([keras.Input((8,)), *stack])), At(batches)))
    assert "seen" in histories[0]
    for key, values in of_answers(histories[0]):
        np.testing.assert_allclose(histories[1][key], values, rtol=1e-5, err_msg=key)


# A state is weights and cuts -----------------------------------------------------------------------------------------


def copies(weights):
    return [np.array(w) for w in weights]


HOW = {"list": lambda w: w, "arrays": copies, "pickle": lambda w: copy.copy(pickle.loads(pickle.dumps(w)))}


def trained(**settings):
    model = toy.compressed(format_optimizer=SGD(0.0), **settings)
    model.train_on_batch(X, Y)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_weights_bring_the_channels_that_they_had(how):
    """Back, forth again, and into another model."""
    model = trained()
    states = []
    for channels in ((1, 4), (0,), (3, 2)):
        states.append((HOW[how](model.get_weights()), np.asarray(model(X)), model.get_layer("hidden").units))
        cut(model, *channels)
        model.train_on_batch(X, Y)
    steps = int(model.optimizer.iterations)
    for weights, answers, units in [states[i] for i in (1, 0, 2, 1)]:
        model.set_weights(weights)
        assert model.get_layer("hidden").units == units
        np.testing.assert_array_equal(model(X), answers)
        assert int(model.optimizer.iterations) == steps
    model.train_on_batch(X, Y)
    if how != "arrays":
        other = trained()
        other.set_weights(states[2][0])
        np.testing.assert_array_equal(other(X), states[2][1])


def test_weights_of_channels_that_never_were_are_refused():
    model, other = trained(), trained()
    cut(other, 1, 4)
    answers = np.asarray(model(X))
    with pytest.raises(ValueError, match="shape"):
        model.set_weights(copies(other.get_weights()))
    with pytest.raises(ValueError, match="cut of this architecture"):
        weights = other.get_weights()
        weights.cuts = [{**weights.cuts[0], "removed": [10_000]}]
        cut(model, 0), model.set_weights(weights)
    assert model.get_layer("hidden").units == 11
    assert np.isfinite(answers).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(zoo.NETWORKS.keys() - {"unknown"}))  # no channel of that one goes
def test_every_network_gets_back_what_it_was(name):
    model = scc_tf.self_compress(zoo.without_offsets(zoo.vary(zoo.NETWORKS[name]())))
    config, state, answers = model.get_config(), model.get_weights(), zoo.outputs(model, zoo.examples(model))
    rng = np.random.default_rng(0)
    for _ in range(2):
        for layer in scc_tf.training.self_compressing_layers(model):
            for fmt in layer.formats:
                fmt.bit_depth.assign(np.where(rng.random(fmt.channels) < 0.4, 0.0, fmt.bit_depth))
        model.remove_dead_channels()
    assert model.cuts
    smaller, small_answers = model.get_weights(), zoo.outputs(model, zoo.examples(model))
    model.set_weights(state)
    assert keras.saving.serialize_keras_object(model.get_config()["layers"]) == keras.saving.serialize_keras_object(
        config["layers"]
    )
    np.testing.assert_array_equal(zoo.outputs(model, zoo.examples(model)), answers)
    model.set_weights(smaller)
    np.testing.assert_array_equal(zoo.outputs(model, zoo.examples(model)), small_answers)


@pytest.mark.slow
def test_early_stopping_goes_back_to_the_best_epoch():
    model, answers = trained(metrics=["accuracy"]), {}
    score = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(score=abs(epoch - 1)))
    stopping = keras.callbacks.EarlyStopping("score", mode="min", patience=2, restore_best_weights=True)
    record = At(epochs={1: lambda m: answers.update(best=np.asarray(m(X)))})
    cuts = At({3: lambda m: cut(m, 1), 9: lambda m: cut(m, 0, 4)})
    fit(model, cuts, record, score, stopping, epochs=6)
    np.testing.assert_allclose(model(X), answers["best"], atol=1e-6)
    assert [model.get_layer("hidden").units, len(model.cuts)] == [11, 1]
    assert int(model.optimizer.iterations) == 1 + 4 * STEPS
    assert np.isfinite(fit(model)["loss"]).all()


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_files_of_any_state_load_into_any_other(tmp_path):
    """Uncut, cut, cut otherwise: files and models; slots and steps of the optimizers come along."""
    files = {}
    for name, channels in {"whole": [], "cut": [(1, 4)], "more": [(1, 4), (0,)], "other": [(2,), (7,)]}.items():
        model = trained()
        for some in channels:
            cut(model, *some)
        model.train_on_batch(X, Y)
        model.save_weights(tmp_path / f"{name}.weights.h5")
        files[name] = np.asarray(model(X)), toy.values(model.optimizer.variables)
    for name in ("more", "whole", "other", "cut", "more"):
        model.load_weights(tmp_path / f"{name}.weights.h5")
        np.testing.assert_array_equal(model(X), files[name][0])
        toy.assert_same(toy.values(model.optimizer.variables), files[name][1])
    model.train_on_batch(X, Y)


@pytest.mark.slow
def test_a_model_file_of_a_cut_network_can_still_be_uncut(tmp_path):
    model = trained(metrics=["accuracy"])
    model.save_weights(tmp_path / "whole.weights.h5")
    answers = np.asarray(model(X))
    cut(model, 1, 4)
    model.save(tmp_path / "cut.keras")
    loaded = keras.saving.load_model(tmp_path / "cut.keras")
    np.testing.assert_array_equal(loaded(X), model(X))
    fit(loaded, At({2: lambda m: cut(m, 0)}))
    assert loaded.get_layer("hidden").units == 9
    loaded.load_weights(tmp_path / "whole.weights.h5")
    np.testing.assert_array_equal(loaded(X), answers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping nested container")  # by Keras, which tries on
def test_a_cut_of_which_too_little_is_known_is_not_undone(tmp_path):
    """Older files do not tell how a layer was before."""
    model = trained()
    model.save_weights(tmp_path / "whole.weights.h5")
    cut(model, 1, 4)
    model.cuts[0].pop("undo")
    with pytest.raises(ValueError, match="how it was before it lost them is not known"):
        model.load_weights(tmp_path / "whole.weights.h5")


@pytest.mark.slow
@pytest.mark.parametrize("extension", ["weights.h5", "keras"])
@pytest.mark.parametrize("size_model", ["bits", "entropy"])
def test_files_keep_gamma(tmp_path, size_model, extension):
    path = tmp_path / f"model.{extension}"
    model = trained(size_model=size_model, gamma=0.02)
    model.gamma.assign(0.05)
    if extension == "keras":
        model.save(path)
        loaded = keras.saving.load_model(path)
    else:
        model.save_weights(path)
        loaded = trained(size_model=size_model, gamma=0.02)
        loaded.load_weights(path)
    assert float(loaded.gamma) == pytest.approx(0.05)


@pytest.mark.slow
def test_a_weights_file_without_gamma_loads(tmp_path, monkeypatch):
    model = trained(gamma=0.02)
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "_own_variables", lambda self: {})
        model.save_weights(tmp_path / "old.weights.h5")
    other = trained(gamma=0.03)
    other.load_weights(tmp_path / "old.weights.h5")
    assert float(other.gamma) == pytest.approx(0.03)


# Half precision ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_loss_scale_lives_through_cuts():
    model = network(toy.dense_net(dtype="mixed_float16"), optimizer=keras.optimizers.LossScaleOptimizer(Adam(0.01)))
    optimizer, count = model.optimizer, len(model.optimizer.variables)
    optimizer.dynamic_scale.assign(8.0)
    optimizer.step_counter.assign(3)
    for channels in ((0, 1), (0,), (1,)):
        scale, counter = float(optimizer.dynamic_scale), int(optimizer.step_counter)
        cut(model, *channels)
        assert (float(optimizer.dynamic_scale), int(optimizer.step_counter)) == (scale, counter)
        assert len(model.optimizer.variables) == count
        assert np.isfinite(model.train_on_batch(X, Y)[0])
        assert int(optimizer.step_counter) == counter + 1
