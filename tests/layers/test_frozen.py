"""What a user has frozen stays as it is, until asked otherwise."""

import keras
import numpy as np
import pytest
from keras import layers

import scc_tf
from scc_tf.callbacks import MagnitudePruning
from scc_tf.finishing.fit_to_size import widen_dead_zone
from scc_tf.finishing.rounding import round_exponents, round_vectors

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 6)).astype("float32"), RNG.integers(0, 3, 16)


def _frozen_layer():
    model = _network()
    model.get_layer("kept").trainable = model.get_layer("norm").trainable = False
    return model


def _frozen_kernel():
    model = _network()
    model.get_layer("kept").kernel.trainable = False
    model.get_layer("norm").trainable = False
    return model


def _frozen_inside():
    inner = keras.Sequential([keras.Input((6,)), *_kept()], name="inner")
    model = _filled(keras.Sequential([keras.Input((6,)), inner, layers.Dense(5), layers.Dense(3)]))
    inner.trainable = False
    return model


def _kept():
    return layers.Dense(6, name="kept"), layers.BatchNormalization(name="norm")


def _network():
    return _filled(keras.Sequential([keras.Input((6,)), *_kept(), layers.Dense(5), layers.Dense(3)]))


def _filled(model):
    for weight in model.weights:
        weight.assign(RNG.uniform(0.3, 1.7, weight.shape))
    return model


def _of(model, name):
    return next(layer for layer in model._flatten_layers() if layer.name == name)


def _kept_answers(model):
    return np.asarray(_of(model, "norm")(_of(model, "kept")(X), training=False))


def _compiled(model):
    still = keras.optimizers.SGD(0.0)
    model.compile(still, keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    return model


def _pruned(model, **settings):
    masked = _compiled(scc_tf.add_masks(model, **settings))
    schedule = scc_tf.tfmot.ConstantSparsity(0.5, 0, frequency=1)
    masked.fit(X, Y, verbose=0, callbacks=[MagnitudePruning(schedule, "global", **settings)])
    return masked


CONVERSIONS = {
    "self_compress": lambda model, **settings: scc_tf.self_compress(model, 2, **settings),
    "share_weights": lambda model, **settings: scc_tf.share_weights(model, clusters=2, **settings),
    "add_masks": _pruned,
}
each_conversion = pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
each_way = pytest.mark.parametrize("make", [_frozen_layer, _frozen_kernel, _frozen_inside])


@each_conversion
@each_way
def test_a_conversion_leaves_it_and_says_so(convert, make):
    model = make()
    small = convert(model)
    np.testing.assert_array_equal(_kept_answers(small), _kept_answers(model))
    assert small.conversion_report.skipped["kept"].startswith("frozen (trainable=False)")
    flags = [layer.trainable for layer in model._flatten_layers() if layer.weights]
    assert [layer.trainable for layer in small._flatten_layers() if layer.weights] == flags
    assert not _of(small, "kept").kernel.trainable


@each_conversion
def test_a_switch_includes_it(convert):
    model = _frozen_layer()
    small = convert(model, include_frozen=True)
    assert "kept" in small.conversion_report.converted
    assert not _of(small, "kept").trainable
    assert np.abs(_kept_answers(small) - _kept_answers(model)).max() > 0.01


@each_conversion
def test_a_network_that_is_all_frozen_is_refused(convert):
    model = _network()
    model.trainable = False
    with pytest.raises(
        ValueError, match=r"Expected at least one layer that can .*kept: frozen \(trainable=False\)"
    ) as error:
        convert(model)
    assert "\n" not in str(error.value)


@each_way
def test_rounding_leaves_it(make):
    small = scc_tf.self_compress(make(), 6, include_frozen=True)
    before, others = _kept_answers(small), np.asarray(small(X))
    round_exponents(small, 0)
    widen_dead_zone(small, 0.4)
    round_vectors(small, 1)
    np.testing.assert_array_equal(_kept_answers(small), before)
    assert np.abs(np.asarray(small(X)) - others).max() > 0
    round_exponents(small, 0, include_frozen=True)
    assert np.abs(_kept_answers(small) - before).max() > 0
    before = _kept_answers(small)
    round_vectors(small, 1, include_frozen=True)
    assert np.abs(_kept_answers(small) - before).max() > 0


def test_pruning_does_not_count_it():
    masked = scc_tf.add_masks(_network())
    _of(masked, "kept").trainable = False
    pruning = MagnitudePruning(scc_tf.tfmot.ConstantSparsity(0.5, 0, frequency=1))
    _compiled(masked).fit(X, Y, verbose=0, callbacks=[pruning])
    assert np.asarray(_of(masked, "kept").masks["kernel"]).all()
    assert pruning.history[0]["sparsity"] == pytest.approx(0.5, abs=0.05)
    masked.trainable = False
    with pytest.raises(ValueError, match="include_frozen=True"):
        pruning.on_train_begin()


@each_way
@pytest.mark.slow
def test_flags_are_in_every_file(make, tmp_path):
    small = scc_tf.self_compress(make())
    small.save(tmp_path / "model.keras")
    scc_tf.save_packed(small, tmp_path / "model.scc")
    flags = [layer.trainable for layer in small._flatten_layers() if layer.weights]
    for restored in (keras.models.load_model(tmp_path / "model.keras"), scc_tf.load_packed(tmp_path / "model.scc")):
        assert [layer.trainable for layer in restored._flatten_layers() if layer.weights] == flags
    _compiled(small)
    smaller = scc_tf.remove_dead_channels(small)[0]
    assert [layer.trainable for layer in smaller._flatten_layers() if layer.weights] == flags
