import keras
import numpy as np
import pytest
import tensorflow as tf
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


@pytest.mark.parametrize("batch_size", [None, 7])
def test_a_dataset_of_batches_with_or_without_labels(batch_size):
    x, model = features(), norm_first(layers.Dense(2))
    wanted = [x[:10], x[10:20], x[20:]] if batch_size is None else [x[:7], x[7:10], x[10:17], x[17:20], x[20:]]
    for dataset in (tf.data.Dataset.from_tensor_slices(x), tf.data.Dataset.from_tensor_slices((x, x[:, 0]))):
        reestimate_batch_statistics(model, dataset.batch(10), batch_size)
        means = np.average([part.mean(0) for part in wanted], axis=0, weights=[len(part) for part in wanted])
        np.testing.assert_allclose(model.get_layer("norm").moving_mean, means, rtol=1e-4)


@pytest.mark.parametrize("kind", ["list", "dict", "dataset"])
def test_several_inputs(kind):
    ends = {name: keras.Input((5,), name=name) for name in "ba"}
    norm = layers.BatchNormalization(name="norm")
    x = {"b": features(), "a": features() + 1}
    model = keras.Model(
        list(ends.values()) if kind == "list" else ends, norm(layers.Subtract()([ends["a"], ends["b"] * 3]))
    )
    images = {"list": list(x.values()), "dict": x, "dataset": tf.data.Dataset.from_tensor_slices((x,)).batch(23)}[kind]
    reestimate_batch_statistics(model, images)
    np.testing.assert_allclose(norm.moving_mean, (x["a"] - 3 * x["b"]).mean(0), rtol=1e-4)


def test_a_fixed_batch_is_never_a_smaller_one():
    model, x = keras.Sequential([keras.Input(batch_shape=(4, 5)), layers.BatchNormalization(name="norm")]), features(6)
    reestimate_batch_statistics(model, x)
    np.testing.assert_allclose(
        model.get_layer("norm").moving_mean, (x[:4].mean(0) + x[[4, 5, 0, 1]].mean(0)) / 2, rtol=1e-4
    )


def test_a_norm_that_is_frozen_or_freed_between_two_calls():
    model = norm_first(layers.Dense(2))
    norm = model.get_layer("norm")
    for trainable, shift in ((True, 0), (False, 1), (True, 2)):
        norm.trainable, before = trainable, np.asarray(norm.moving_mean)
        reestimate_batch_statistics(model, features() + shift)
        np.testing.assert_allclose(norm.moving_mean, features().mean(0) + shift if trainable else before, rtol=1e-3)


def overflowing():
    return norm_first(layers.Rescaling(1e30), layers.Rescaling(1e30), layers.BatchNormalization())


def spoilt(x):
    x[-1, 2] = np.nan
    return x


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        (norm_first, features()[:0], "at least one example"),
        (norm_first, features()[:, :4], r"Expected inputs of shape \(None, 5\)"),
        (norm_first, None, "inputs=None"),
        (norm_first, np.array(["a"]), "array of numbers"),
        (norm_first, spoilt(features()), "Expected inputs to be finite"),
        (norm_first, tf.data.Dataset.from_tensor_slices(spoilt(features())).batch(10), "Expected inputs to be finite"),
        (norm_first, tf.data.Dataset.from_tensor_slices(features()).batch(10).repeat(), "take some batches"),
        (norm_first, tf.data.Dataset.from_tensor_slices(features()[:0]).batch(10), "at least one batch"),
        (overflowing, features(), "finite batch statistics.*layer"),
    ],
)
def test_what_no_statistics_can_be_made_of_is_refused_and_changes_nothing(model, images, message):
    model = model()
    reestimate_batch_statistics(model, np.zeros((4, 5), np.float32))
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as caught:
        reestimate_batch_statistics(model, images)
    assert "\n" not in str(caught.value)
    toy.assert_same(model.get_weights(), before)


def test_a_batch_size_is_a_count():
    with pytest.raises(ValueError, match="batch_size=0"):
        reestimate_batch_statistics(norm_first(), features(), batch_size=0)
