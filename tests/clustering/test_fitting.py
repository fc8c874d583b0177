import keras
import numpy as np
import pytest
from keras import layers
from small_nets import image_batch, plain, randomized, residual, two_readers

from scc_tf import cluster_filters
from scc_tf.clustering import find_chains, fitting, keep_filters


def outputs(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def distance(one, other, images):
    return np.square(outputs(one, images) - outputs(other, images)).mean()


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((7, 6, 3), layers.Conv2D(4, 3)),
        ((7, 6, 3), layers.Conv2D(4, (2, 3), padding="same")),
        ((7, 6, 3), layers.Conv2D(4, 3, strides=2, padding="same")),
        ((7, 6, 3), layers.Conv2D(4, (3, 2), strides=(2, 3))),
        ((9, 8, 3), layers.Conv2D(4, 3, dilation_rate=2, padding="same")),
        ((9, 3), layers.Conv1D(4, 3, strides=2)),
        ((9, 3), layers.Conv1D(4, 3, dilation_rate=2, padding="causal")),
        ((5,), layers.Dense(4)),
        ((6, 5), layers.Dense(4)),
        ((2, 3, 5), layers.Dense(4)),
    ],
)
def test_windows_are_what_the_layer_reads(shape, layer):
    model = randomized(keras.Sequential([keras.Input(shape), layer]))
    layer.bias.assign(np.zeros(4))
    values, windows = (
        np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32),
        fitting._Windows(layer, shape[:-1]),
    )
    said = outputs(model, values).reshape(3, -1, 4)
    assert windows.positions == said.shape[1]
    positions = np.tile(np.arange(windows.positions), (3, 1))
    rows = windows.cut(values, positions) @ fitting._matrix(layer)
    np.testing.assert_allclose(rows.reshape(said.shape), said, atol=1e-5)


@pytest.mark.slow
def test_what_others_can_say_is_not_missed():
    """Without an activation, a channel that is the sum of two others can go without a trace."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, use_bias=False, name="a")(inputs)
    model = randomized(keras.Model(inputs, layers.Conv2D(2, 2, name="b")(x)))
    kernel = keras.ops.convert_to_numpy(model.get_layer("a").kernel).copy()
    kernel[..., 2] = kernel[..., 0] - 0.5 * kernel[..., 1]
    model.get_layer("a").kernel.assign(kernel)
    images, others = image_batch(64, 6, 2), image_batch(8, 6, 2, seed=1)
    kept = {"a": np.array([True, True, False])}
    dropped, fitted = (keep_filters(model, kept, images, fitted=fitted) for fitted in (False, True))
    assert distance(dropped, model, others) > 0.1
    np.testing.assert_allclose(outputs(fitted, others), outputs(model, others), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "layer", "most"),
    [(residual, "head", 0.8), (plain, "head", 0.8), (two_readers, "left", 0.98), (two_readers, "right", 0.98)],
)
def test_fitted_networks_are_nearer_to_the_original_on_other_images(build, layer, most):
    model, images, others = build(), image_batch(256), image_batch(64, seed=1)
    clusters = {chain.name: chain.channels - 2 for chain in find_chains(model)}
    wanted, _ = cluster_filters(model, 100, images)  # with the statistics of these images
    networks = [wanted, *(cluster_filters(wanted, clusters, images, merge=merge)[0] for merge in ("scaled", "fitted"))]
    wanted, summed, fitted = (keras.Model(network.input, network.get_layer(layer).output) for network in networks)
    assert distance(fitted, wanted, others) < most * distance(summed, wanted, others)


@pytest.mark.slow
def test_the_default_with_images_is_fitted_and_the_original_stays():
    model, images = residual(), image_batch(40)
    before = model.get_weights()
    default, fitted = (cluster_filters(model, 3, images, **options)[0] for options in ({}, {"merge": "fitted"}))
    for one, other in zip(default.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_what_no_image_can_confirm_is_not_changed():
    """Of three images none is held out."""
    model, images = residual(), image_batch(3)
    for name in ("one_conv2", "two_conv2", "head"):
        kernels = [
            cluster_filters(model, 3, images, merge=merge)[0].get_layer(name).kernel for merge in ("scaled", "fitted")
        ]
        np.testing.assert_array_equal(*kernels)


@pytest.mark.slow
def test_noise_is_not_fitted():
    """Many inputs and few images: what is held out keeps the fit from learning them by heart."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Flatten()(layers.Conv2D(20, 3, activation="relu", name="a")(inputs))
    model = randomized(keras.Model(inputs, layers.Dense(3, name="b")(x)))
    images, others = image_batch(12, 6, 2), image_batch(200, 6, 2, seed=1)
    kept = {"a": np.arange(20) < 15}
    dropped, fitted = (keep_filters(model, kept, images, fitted=fitted) for fitted in (False, True))
    assert distance(fitted, model, others) < distance(dropped, model, others)


@pytest.mark.slow
def test_images_are_missing():
    with pytest.raises(ValueError, match='the merge "fitted" and a budget'):
        cluster_filters(residual(), 2, space="raw", merge="fitted")
    with pytest.raises(ValueError, match="Expected inputs to fit"):
        keep_filters(residual(), {"one_conv1": np.arange(6) < 3}, fitted=True)


@pytest.mark.slow
def test_chains_of_a_nested_model_are_refused():
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="a"), layers.Conv2D(2, 3, name="b")])
    model = keras.Sequential([keras.Input((8, 8, 3)), inner])
    for space, merge in (("raw", "fitted"), ("responses", "scaled")):
        with pytest.raises(ValueError, match=r'space="effective" and merge="scaled". Received: \[\'b\'\]'):
            cluster_filters(model, 2, image_batch(), space=space, merge=merge)
    with pytest.raises(ValueError, match=r"Received: \['b'\]"):
        keep_filters(model, {"a": np.arange(4) < 2}, image_batch(), fitted=True)
    smaller, _ = cluster_filters(model, 2, image_batch(), space="effective", merge="scaled")
    assert outputs(smaller, image_batch()).shape == (16, 4, 4, 2)


@pytest.mark.slow
def test_layers_that_another_model_calls_first_are_fitted_to_what_this_one_reads():
    inputs = keras.Input((6, 6, 2))
    x, reader = layers.Conv2D(6, 3, name="a")(inputs), layers.Conv2D(2, 1, name="b")
    keras.Model(inputs, reader(x))
    model = randomized(keras.Model(inputs, reader(layers.Activation("sigmoid")(x))))
    images, others = image_batch(256, 6, 2), image_batch(32, 6, 2, seed=1)
    clusters = {"a": 4}
    summed, fitted = (cluster_filters(model, clusters, images, merge=merge)[0] for merge in ("scaled", "fitted"))
    assert distance(fitted, model, others) < distance(summed, model, others)


@pytest.mark.slow
def test_images_of_any_size():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="a")(inputs)
    model = randomized(keras.Model(inputs, layers.Conv2D(2, 3, name="b")(x)))
    images, others = image_batch(64), image_batch(8, side=10, seed=1)
    summed, fitted = (
        cluster_filters(model, 3, images, space="effective", merge=merge)[0] for merge in ("scaled", "fitted")
    )
    assert distance(fitted, model, others) < distance(summed, model, others)


@pytest.mark.slow
def test_what_is_missing_on_average_goes_to_the_bias():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, activation="relu", name="a")(inputs)
    model = randomized(keras.Model(inputs, layers.Conv2D(2, 1, name="b")(x)))
    kernel = keras.ops.convert_to_numpy(model.get_layer("a").kernel).copy()
    kernel[..., 2] = 0
    model.get_layer("a").kernel.assign(kernel)
    model.get_layer("a").bias.assign([0.1, 0.2, 5.0])  # the last channel is a constant
    images, others = image_batch(64, 6, 2), image_batch(8, 6, 2, seed=1)
    fitted = keep_filters(model, {"a": np.array([True, True, False])}, images, fitted=True)
    np.testing.assert_allclose(outputs(fitted, others), outputs(model, others), atol=1e-4)


@pytest.mark.slow
def test_readers_that_are_too_large_stay_as_they_are(monkeypatch):
    model, images = plain(), image_batch(64)
    monkeypatch.setattr(fitting, "MOST_WEIGHTS", 50)  # c reads 54, the head 7
    clusters = {"a": 4, "b": 4, "d": 5}
    summed, fitted = (cluster_filters(model, clusters, images, merge=merge)[0] for merge in ("scaled", "fitted"))
    same = {
        name: np.array_equal(summed.get_layer(name).kernel, fitted.get_layer(name).kernel) for name in ("c", "head")
    }
    assert same == {"c": True, "head": False}
