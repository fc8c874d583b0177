import keras
import numpy as np
import pytest
import toy_problem as toy

import scc_tf
from scc_tf.finishing.rounding import round_exponents, round_vectors


@pytest.mark.slow
@pytest.mark.parametrize("bits", [0, 3, 16])
def test_exponents_become_multiples_and_move_by_half_a_place_at_most(bits):
    model = toy.compressed(toy.conv_net())
    before = toy.formats(model)
    round_exponents(model, bits)
    for path, after in toy.formats(model).items():
        if "exponent" in path:
            np.testing.assert_array_equal(after * 2**bits, np.round(after * 2**bits))
            assert np.abs(after - before[path]).max() <= 2.0 ** -(bits + 1)
        else:
            np.testing.assert_array_equal(after, before[path])


@pytest.mark.parametrize("bits", [-1, 17])
def test_places_out_of_range(bits):
    with pytest.raises(ValueError, match="fraction_bits"):
        round_exponents(toy.compressed(), bits)


@pytest.mark.slow
def test_vectors_become_float16_and_kernels_and_formats_stay():
    model = toy.compressed(toy.conv_net())
    norm, head = model.get_layer("norm"), model.get_layer("head")
    rng = np.random.default_rng(0)
    norm.moving_mean.assign(rng.normal(size=6))
    norm.moving_variance.assign(rng.uniform(0.1, 2, 6))
    head.bias.assign(rng.normal(size=3))
    kernel, formats = head.kernel.numpy(), toy.formats(model)
    before = norm.moving_mean.numpy()
    assert round_vectors(model) == ()
    for variable in (norm.moving_mean, norm.moving_variance, norm.gamma, head.bias):
        values = variable.numpy()
        np.testing.assert_array_equal(values, values.astype(np.float16))
    np.testing.assert_allclose(norm.moving_mean.numpy(), before, rtol=1e-3)
    np.testing.assert_array_equal(head.kernel.numpy(), kernel)
    for path, values in toy.formats(model).items():
        np.testing.assert_array_equal(values, formats[path])


@pytest.mark.slow
@pytest.mark.parametrize("value", [1e6, 1e-9])
def test_what_float16_cannot_hold_stays(value):
    model = toy.compressed(toy.conv_net())
    norm = model.get_layer("norm")
    values = np.full(6, 1 / 3, np.float32)
    values[2] = value
    norm.moving_variance.assign(values)
    assert round_vectors(model) == (norm.moving_variance.path,)
    np.testing.assert_array_equal(norm.moving_variance.numpy(), values)


def test_a_plain_model_has_no_exponents():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    before = toy.values(model.weights)
    round_exponents(model)
    toy.assert_same(toy.values(model.weights), before)
    assert scc_tf.finishing.rounding.round_vectors(model) == ()


@pytest.mark.slow
def test_codes_stay_where_the_kernels_move_along():
    model = toy.compressed(toy.conv_net())
    layers = scc_tf.layers.self_compressing_layers(model)
    for layer in layers:
        layer.exponent.assign_add(np.full(layer.exponent.shape, 0.3))
    before = [np.asarray(layer.codes()) for layer in layers]
    round_exponents(model, 1, rescale=True)
    for layer, codes in zip(layers, before, strict=True):
        np.testing.assert_array_equal(layer.codes(), codes)


@pytest.mark.parametrize("bits", [0, 3, 9])
def test_vectors_keep_as_many_bits_as_they_are_asked_to(bits):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    values = np.float32([0.0, -1.3, 100.7, 0.011])
    model.layers[0].bias.assign(values)
    assert round_vectors(model, bits) == ()
    rounded = np.asarray(model.layers[0].bias)
    np.testing.assert_array_equal(np.ldexp(np.frexp(rounded)[0], bits + 1) % 1, 0)
    np.testing.assert_allclose(rounded, values, rtol=2.0 ** -(bits + 1))


@pytest.mark.parametrize("bits", [-1, 11])
def test_bits_of_vectors_out_of_range(bits):
    with pytest.raises(ValueError, match="Expected mantissa_bits to be a whole number from 0 to 10"):
        round_vectors(keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]), bits)


def test_a_quantized_bias_becomes_what_its_layer_adds():
    model = keras.Sequential([keras.Input((3,)), scc_tf.layers.Dense(2, bias_exponent=-6)])
    model.layers[0].bias.assign([10.001, -0.02])
    round_vectors(model, mantissa_bits=2)
    np.testing.assert_array_equal(model.layers[0].bias, [10.0, -1 / 64])


@pytest.mark.parametrize(("mean", "kept"), [(1.7, False), (2001.3, True)])
def test_means_that_are_far_beside_their_deviation_are_not_rounded(mean, kept):
    norm = keras.layers.BatchNormalization(name="norm")
    model = keras.Sequential([keras.Input((2,)), norm])
    norm.moving_mean.assign([0.1, mean])
    norm.moving_variance.assign([4.0, 4.0])
    x = np.float32([[0.3, mean + 1]])
    before = np.asarray(model(x))
    assert [path.rpartition("/")[2] for path in round_vectors(model)] == ["moving_mean"] * kept
    np.testing.assert_allclose(model(x), before, atol=2e-3)
