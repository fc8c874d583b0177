"""What `self_compress` may choose beside bit depths: one exponent per kernel, and rounded biases."""

import keras
import numpy as np
import pytest
from keras import layers as stock

import scc_tf
from scc_tf.training import self_compressing_layers

BIAS_EXPONENT = -2


def net():
    """Every kind of bias, none of them on the grid, in a nested model too."""
    inner = keras.Sequential(
        [
            keras.Input((8, 4)),
            stock.Conv1D(3, 2, name="conv1d"),
            stock.EinsumDense("abc,cde->abde", (7, 2, 2), bias_axes="de"),
        ]
    )
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            stock.Conv2D(4, 3, activation="relu", name="conv"),
            stock.DepthwiseConv2D(3, padding="same"),
            stock.SeparableConv2D(4, 2, use_bias=False),
            stock.Conv2DTranspose(4, 2, padding="same"),
            stock.Reshape((9, 4)),
            stock.Cropping1D((0, 1)),
            inner,
            stock.Flatten(),
            stock.Dense(3, name="head"),
        ]
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.3, 0.9, weight.shape) * rng.choice([-1, 1], weight.shape))
    return model


@pytest.fixture(scope="module")
def compressed():
    return scc_tf.self_compress(net(), 5, exponent_per="kernel", bias_exponent=BIAS_EXPONENT)


def images():
    return np.random.default_rng(1).normal(size=(3, 6, 6, 2)).astype("float32")


def biases(model):
    return {w.path.split("/")[-2]: np.asarray(w) for w in model.weights if w.name == "bias"}


def on_grid(values):
    return np.array_equal(values, np.round(values * 2.0**-BIAS_EXPONENT) * 2.0**BIAS_EXPONENT)


@pytest.mark.slow
def test_one_exponent_per_kernel_is_the_largest_of_its_channels(compressed):
    by_channel = scc_tf.self_compress(net(), 5)
    for one, each in zip(*map(self_compressing_layers, (compressed, by_channel)), strict=True):
        for fmt, free in zip(one.formats, each.formats, strict=True):
            assert np.ptp(fmt.exponent) == 0 < np.ptp(free.exponent)
            assert fmt.exponent[0] == np.max(free.exponent)


def test_every_bias_is_rounded_and_kept_as_it_is(compressed):
    plain = biases(net())
    for layer in self_compressing_layers(compressed):
        assert layer.bias_exponent == BIAS_EXPONENT
        assert layer.has_quantized_bias == (layer.bias is not None)
        if layer.has_quantized_bias:
            np.testing.assert_array_equal(layer.bias, plain[layer.name])
            assert on_grid(np.asarray(layer.quantized_bias()))
            assert not on_grid(np.asarray(layer.bias))


def test_to_plain_adds_the_same_biases(compressed):
    plain = scc_tf.to_plain(compressed)
    np.testing.assert_array_equal(plain(images()), compressed(images()))
    assert all(map(on_grid, biases(plain).values()))
    assert not [layer for layer in plain._flatten_layers() if "bias_exponent" in layer.get_config()]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_to_plain_is_exact_in_mixed_precision(policy):
    first, second = stock.Dense(6, activation="relu", dtype=policy), stock.Dense(3, dtype=policy)
    plain = keras.Sequential([keras.Input((4,)), first, second])
    rng = np.random.default_rng(0)
    for layer in (first, second):
        # between two codes; a latent bias in half precision would have another code
        layer.bias.assign((2 * rng.integers(0, 4, layer.bias.shape) + 1.4999) * 2.0**-6)
    model = scc_tf.self_compress(plain, bias_exponent=-6)
    x = rng.normal(size=(5, 4)).astype("float32")
    np.testing.assert_array_equal(scc_tf.to_plain(model)(x), model(x))


@pytest.mark.slow
def test_masks_keep_latent_bias_and_format(compressed):
    masked = scc_tf.add_masks(compressed)
    np.testing.assert_array_equal(masked(images()), compressed(images()))
    for (name, ours), theirs in zip(biases(compressed).items(), biases(masked).values(), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.mark.slow
def test_weight_sharing_takes_the_bias_that_is_added(compressed):
    shared = scc_tf.share_weights(compressed, clusters=1000)
    np.testing.assert_allclose(shared(images()), compressed(images()), rtol=1e-4, atol=1e-4)
    assert all(map(on_grid, biases(shared).values()))


@pytest.mark.slow
def test_files_and_clones_keep_the_format(compressed, tmp_path):
    compressed.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images()), compressed(images()))
    clone = keras.models.clone_model(compressed)
    clone.set_weights(compressed.get_weights())
    np.testing.assert_array_equal(clone(images()), compressed(images()))


@pytest.mark.slow
def test_a_model_that_is_compressed_already_keeps_its_format(compressed):
    inputs = keras.Input((6, 6, 2))
    again = scc_tf.self_compress(keras.Model(inputs, stock.Dense(2, name="new")(compressed(inputs))))
    assert again.get_layer("new").bias_exponent is None
    heads = [layer for layer in self_compressing_layers(again) if layer.name == "head"]
    assert [layer.bias_exponent for layer in heads] == [BIAS_EXPONENT]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"exponent_per": "layer"}, "one of .*'channel', 'kernel'.*Received: exponent_per='layer'"),
        ({"bias_exponent": 9}, "from -24 to 8. Received: bias_exponent=9"),
        ({"bias_exponent": 0.5}, "Received: bias_exponent=0.5"),
    ],
)
def test_bad_settings_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        scc_tf.self_compress(keras.Sequential([keras.Input((3,)), stock.Dense(2)]), **bad)
