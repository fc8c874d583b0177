import keras
import numpy as np
import pytest
import toy_problem as toy

from scc_tf.batch_statistics import reestimate_batch_statistics

layers = keras.layers


def norm_first(*rest):
    return keras.Sequential([keras.Input((5,)), layers.BatchNormalization(momentum=0.83, name="norm"), *rest])


def features(count=23):
    return (np.random.default_rng(0).normal(size=(count, 5)) * [1, 2, 3, 4, 5] + 1).astype(np.float32)


@pytest.mark.parametrize("batch_size", [4, 23, 11, 100])
def test_statistics_are_the_mean_over_the_batches(batch_size):
    model, x = norm_first(layers.Dense(2)), features()
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.full(5, 1e6))  # whatever stood there before does not matter
    reestimate_batch_statistics(model, x, batch_size)
    batches = np.array_split(x, -(-len(x) // batch_size))
    assert all(len(batch) <= batch_size for batch in batches)
    np.testing.assert_allclose(norm.moving_mean, np.mean([b.mean(0) for b in batches], 0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, np.mean([b.var(0) for b in batches], 0), rtol=1e-4)


def test_a_small_rest_does_not_count_as_a_batch():
    model, x = norm_first(), features(513)  # 512 and 1: a batch of one has no variance
    reestimate_batch_statistics(model, x, 512)
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, x.var(0), rtol=0.05)


def test_norms_in_nested_models_are_estimated():
    model, (x, _) = toy.conv_net(), toy.images(20)
    inner = keras.Model(model.inputs[0], model.get_layer("conv2").output)
    outer = keras.Sequential([keras.Input((8, 8, 1)), model])  # nested
    reestimate_batch_statistics(outer, x, 10)
    seen = np.stack([np.asarray(inner(part)).reshape(-1, 6).var(0) for part in (x[:10], x[10:])])
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, seen.mean(0), rtol=1e-4)


def test_evaluation_then_equals_training_mode():
    model, (x, _) = toy.conv_net(), toy.images(20)
    reestimate_batch_statistics(model, x)
    np.testing.assert_allclose(model(x, training=False), model(x, training=True), atol=1e-4)


def test_nothing_but_the_statistics_changes():
    model, (x, _) = toy.conv_net(), toy.images(20)
    before = {w.path: np.asarray(w).copy() for w in model.weights}
    reestimate_batch_statistics(model, x)
    changed = {w.name for w in model.weights if np.abs(np.asarray(w) - before[w.path]).max() > 0}
    assert changed == {"moving_mean", "moving_variance"}
    assert model.get_layer("norm").momentum == 0.9


@pytest.mark.parametrize(
    "dropout", [layers.Dropout, layers.SpatialDropout1D, layers.GaussianDropout, layers.AlphaDropout]
)
def test_dropout_is_off_meanwhile_and_on_afterwards(dropout):
    keras.utils.set_random_seed(0)
    x = features()
    parts = [layers.Reshape((5, 1)), dropout(0.7, name="drop"), layers.BatchNormalization(name="norm")]
    model = keras.Sequential([keras.Input((5,)), *parts])
    reestimate_batch_statistics(model, x)
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, [x.var()], rtol=1e-4)
    assert model.get_layer("drop").rate == 0.7


def test_noise_is_off_meanwhile_and_on_afterwards():
    x = features()
    model = keras.Sequential([keras.Input((5,)), layers.GaussianNoise(0.9), layers.BatchNormalization(name="norm")])
    reestimate_batch_statistics(model, x)
    np.testing.assert_allclose(model.get_layer("norm").moving_mean, x.mean(0), rtol=1e-4)
    assert model.layers[0].stddev == 0.9


def test_momentum_and_dropout_are_restored_after_an_exception():
    model = norm_first(layers.Dropout(0.4, name="drop"))
    with pytest.raises(ValueError, match="shape"):
        reestimate_batch_statistics(model, np.zeros((3, 4), np.float32), 1)
    assert model.get_layer("norm").momentum == 0.83
    assert model.get_layer("drop").rate == 0.4


def test_frozen_norms_keep_their_statistics():
    model = norm_first(layers.BatchNormalization(name="free"))
    frozen = model.get_layer("norm")
    frozen.trainable = False
    reestimate_batch_statistics(model, features())
    np.testing.assert_array_equal(frozen.moving_mean, np.zeros(5))
    np.testing.assert_array_equal(frozen.moving_variance, np.ones(5))
    assert frozen.momentum == 0.83
    assert np.abs(model.get_layer("free").moving_mean).max() > 0


def test_a_network_without_norms_is_left_alone():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    before = model.get_weights()
    reestimate_batch_statistics(model, features())
    toy.assert_same(model.get_weights(), before)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        reestimate_batch_statistics(norm_first(), features()[:0])
