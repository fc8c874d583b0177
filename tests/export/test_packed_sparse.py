"""What sparse networks take in a packed file, and what their files keep."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from lab import models
from test_packed import check_restored, check_round_trip
from test_packed_shared import check_restored as check_sparse_restored
from test_packed_shared import masked_model, mixed_model

import scc_tf
from scc_tf.export import load_packed, packed_bytes, save_packed
from scc_tf.export.packed import _unpack, packed_report
from scc_tf.training import self_compressing_layers


def sparse_model(seed=0, density=0.1, exponents=True):
    """A small network such as training for a small file leaves; one exponent for each kernel, or any."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.MaxPooling2D(name="pool")(keras.layers.Conv2D(6, 3, activation="relu", name="conv")(inputs))
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dense(12, activation="relu", name="dense")(keras.layers.Flatten(name="flatten")(x))
    model = scc_tf.self_compress(keras.Model(inputs, keras.layers.Dense(5, name="head")(x), name="sparse"), 4)
    for layer in self_compressing_layers(model):
        channels = layer.exponent.shape
        exponent = np.rint(8 * rng.normal(-4, 1, channels if not exponents else ())) / 8
        codes = np.rint(rng.laplace(0, 2, layer.kernel.shape)) * (rng.random(layer.kernel.shape) < density)
        codes *= rng.random(channels) < 0.8
        layer.bit_depth.assign(np.full(channels, 7))
        layer.exponent.assign(np.broadcast_to(exponent, channels))
        layer.kernel.assign(codes * 2.0**exponent)
        layer.bias.assign(np.rint(4 * rng.normal(size=channels)) / 16 + 0.0)
    return model


def assign_codes(layer, codes, exponents):
    layer.bit_depth.assign([24] * len(exponents))
    layer.exponent.assign(exponents)
    layer.kernel.assign(codes * 2.0 ** np.asarray(exponents, np.float64))


@pytest.mark.slow
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("exponents", [True, False], ids=["shared", "individual"])
def test_every_density_round_trips(density, exponents, tmp_path):
    check_round_trip(sparse_model(density=density, exponents=exponents), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kernels_with_masks_and_shared_weights_round_trip(seed):
    for model in (mixed_model(), masked_model(0.1 * seed)):
        check_sparse_restored(model, _unpack(packed_bytes(model), 100_000))


@pytest.mark.slow
@settings(max_examples=20)
@given(
    st.lists(st.floats(-40, 20, width=32) | st.integers(-300, 80).map(lambda n: n / 8), min_size=4, max_size=4),
    st.booleans(),
)
def test_any_exponents(exponents, shared):
    exponents = exponents[:1] * 4 if shared else exponents
    inputs = keras.Input((3,))
    model = scc_tf.SelfCompressingModel(inputs, scc_tf.layers.Dense(4)(inputs), name="one")
    assign_codes(model.layers[-1], np.arange(12).reshape(3, 4) % 5 - 2, exponents)
    check_restored(model, _unpack(packed_bytes(model), 1000))


@pytest.mark.slow
def test_one_exponent_for_a_kernel_takes_about_a_byte():
    shared, individual = (packed_report(sparse_model(exponents=exponents)) for exponents in (True, False))
    assert shared.exponent_bytes <= 4
    assert individual.exponent_bytes > 10


@pytest.mark.slow
def test_biases_of_zeros_take_next_to_nothing():
    model = sparse_model()
    before = packed_report(model).other_bytes
    for layer in self_compressing_layers(model):
        layer.bias.assign(np.full(layer.bias.shape, -0.0))
    assert packed_report(model).other_bytes < before - 8
    assert not any(
        np.signbit(layer.bias).any() for layer in self_compressing_layers(_unpack(packed_bytes(model), 9999))
    )


def test_a_bias_that_its_layer_rounds_is_stored_rounded(tmp_path):
    inputs = keras.Input((3,))
    layer = scc_tf.layers.Dense(4, initial_bit_depth=4, bias_exponent=-4)
    model = scc_tf.SelfCompressingModel(inputs, layer(inputs), name="one")
    layer.bias.assign([0.1, -0.01, 3.0, -0.5])
    save_packed(model, tmp_path / "model.scc")
    restored = load_packed(tmp_path / "model.scc")
    np.testing.assert_array_equal(restored.layers[-1].bias, [0.125, 0, 3, -0.5])
    points = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(points), restored(points))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet_300_100", "lenet_5", "mnist_cnn"])
def test_known_networks_take_few_bytes_for_the_architecture(name):
    model = scc_tf.self_compress(getattr(models, name)(seed=0), 3, bias_exponent=-4)
    for layer in self_compressing_layers(model):
        layer.kernel.assign(ops.where(ops.abs(layer.kernel) > 0.1, layer.kernel, 0))
        layer.bit_depth.assign(np.where(np.arange(layer.bit_depth.shape[0]) % 3, 3, 0))
    model.get_layer("head").bit_depth.assign([3] * 10)
    smaller, _ = scc_tf.remove_dead_channels(model)
    assert packed_report(smaller).architecture_bytes < 15
