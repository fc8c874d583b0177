"""What a removed channel still emits goes into the biases of its readers, where that is exact."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers

import scc_tf

mask = zoo.mask


def through(*stack, shape=(6, 6, 2)):
    """A Conv2D "a" of 4 channels that emit constants when they are dead, a stack, and a head."""
    first = layers.Conv2D(4, 1, name="a", activation="sigmoid")
    return zoo.vary(keras.Sequential([keras.Input(shape), first, *stack, layers.Dense(2, name="head")]))


EXACT = {
    "valid": lambda: [layers.Conv2D(3, 3, name="b")],
    "dilated and strided": lambda: [layers.Conv2D(3, 2, dilation_rate=2, name="b"), layers.Conv2D(3, 2, strides=2)],
    "pointwise same": lambda: [layers.Conv2D(3, 1, padding="same", strides=2, name="b")],
    "normalization": lambda: [layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(3, 3, name="b")],
    "no scale": lambda: [layers.BatchNormalization(scale=False, center=False), layers.Dense(3, name="b")],
    "activations": lambda: [
        layers.LeakyReLU(0.2),
        layers.Activation("tanh"),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Rescaling(3.0, -1.0),
        layers.ELU(0.5),
        layers.ReLU(2.0, 0.1, 0.5),
        layers.Dense(3, name="b"),
    ],
    "pooling": lambda: [
        layers.AveragePooling2D(3, strides=2, padding="same"),
        layers.UpSampling2D(3, interpolation="bilinear"),
        layers.MaxPooling2D(2, padding="same"),
        layers.Cropping2D(1),
        layers.SpatialDropout2D(0.5),
        layers.GaussianNoise(0.5),
        layers.Conv2D(3, 2, name="b"),
    ],
    "global pooling": lambda: [
        layers.GlobalMaxPooling2D(keepdims=True),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3),
    ],
    "flatten": lambda: [layers.Flatten(), layers.Dense(3, name="b")],
    "reshape": lambda: [layers.Reshape((9, 16)), layers.Conv1D(3, 2, name="b")],
    "groups": lambda: [layers.Conv2D(6, 2, groups=2, name="b")],
    "depthwise": lambda: [
        layers.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh"),
        layers.Conv2D(3, 2, name="b"),
    ],
    "separable": lambda: [layers.SeparableConv2D(3, 3, name="b")],
    "transposed": lambda: [layers.Conv2DTranspose(3, 1, name="b")],
    "equation": lambda: [layers.EinsumDense("abcd,de->abce", (None, None, 3), bias_axes="e", name="b")],
    "merges with itself": lambda: [Doubled()],
}


class Doubled(layers.Layer):
    """Placeholder that `graph` replaces by merges of a tensor with itself."""

    def call(self, inputs):
        return inputs


def graph(model):
    """The Sequential as a graph, with the merges of a tensor with itself that it cannot hold."""
    inputs = x = keras.Input(model.input_shape[1:])
    for layer in model.layers[:-1]:
        if isinstance(layer, Doubled):
            x = layers.Add()([x, x, layers.Multiply()([x, x])])
            x = layers.Concatenate()([x, layers.Maximum()([x, layers.Subtract()([x, x])])])
        else:
            x = layer(x)
    return zoo.vary(keras.Model(inputs, layers.Dense(2, name="last")(x)), seed=1)


@pytest.mark.parametrize("name", EXACT)
def test_constants_are_folded(name):
    model = graph(through(*EXACT[name]()))
    kept = mask("0101") if name == "groups" else mask("0111")
    _, report = zoo.remove(model, {"a": kept})
    assert zoo.left(report)["a"] == kept.sum()
    assert report.kept_dead == {}
    assert report.biases_added == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["valid", "flatten", "groups", "depthwise", "separable", "transposed", "equation"])
def test_a_bias_is_added_where_there_is_none(name):
    stack = EXACT[name]()
    for layer in stack:
        layer.use_bias = False
        if hasattr(layer, "bias_axes"):
            layer.bias_axes = None
    model = through(*stack)
    model = scc_tf.self_compress(model, initial_bit_depth=6)
    assert all(getattr(model.get_layer(layer.name), "bias", None) is None for layer in stack)
    smaller, report = zoo.remove(model, {"a": mask("0101")})
    assert zoo.left(report)["a"] == 2
    assert report.biases_added == ("b",)  # what a depthwise kernel emits goes on to its reader
    assert f"{smaller.get_layer('b').name}: got a bias" in str(report)
    expected = report.parameters[1] - sum(np.prod(w.shape) for w in smaller.weights)
    assert expected == 0


def test_the_folded_bias():
    model = through(layers.BatchNormalization(name="norm"), layers.Conv2D(3, 3, name="b", activation="relu"))
    smaller, _ = zoo.remove(model, {"a": mask("0111")})
    a, norm, b = (model.get_layer(name) for name in ("a", "norm", "b"))
    value = 1 / (1 + np.exp(-np.asarray(a.bias)[0]))
    value = (value - norm.moving_mean[0]) / np.sqrt(norm.moving_variance[0] + norm.epsilon) * norm.gamma[0] + norm.beta[
        0
    ]
    expected = np.asarray(b.bias) + value * np.asarray(b.kernel)[:, :, 0].sum(axis=(0, 1))
    np.testing.assert_allclose(smaller.get_layer("b").bias, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("bias_exponent", [-3, -12])
@pytest.mark.parametrize("use_bias", [True, False])
def test_what_is_folded_is_the_rounded_bias_and_its_reader_rounds_the_sum(bias_exponent, use_bias):
    model = through(layers.Flatten(), layers.Dense(3, name="b", use_bias=use_bias))
    model = scc_tf.self_compress(model, 6, bias_exponent=bias_exponent, exclude=["head"])
    a, b, x = model.get_layer("a"), model.get_layer("b"), np.zeros((1, 6, 6, 2))
    a.bit_depth.assign([0, 4, 4, 4])
    before = np.asarray(a.quantized_bias())
    assert np.abs(before - np.asarray(a.bias)).max() > 2.0 ** (bias_exponent - 4)
    smaller, report = scc_tf.remove_dead_channels(model)
    assert report.channels["a"] == (4, 3)
    value = 1 / (1 + np.exp(-before[0]))
    expected = value * np.asarray(b.quantized())[::4].sum(axis=0)
    if use_bias:
        expected += np.asarray(b.quantized_bias())
    folded = smaller.get_layer("b")
    np.testing.assert_allclose(folded.bias, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(folded.quantized_bias(), expected, atol=1.01 * 2.0 ** (bias_exponent - 1))
    head = np.abs(np.asarray(model.get_layer("head").kernel)).sum(axis=0).max()
    np.testing.assert_allclose(smaller(x), model(x), atol=head * 2.0 ** (bias_exponent - 1) + 1e-5)


NOT_EXACT = {
    "same": lambda: [layers.Conv2D(3, 3, padding="same", name="b")],
    "same and dilated": lambda: [layers.Conv2D(3, 2, dilation_rate=2, padding="same", name="b")],
    "causal": lambda: [layers.Reshape((36, 4)), layers.Conv1D(3, 3, padding="causal", name="b")],
    "transposed": lambda: [layers.Conv2DTranspose(3, 2, name="b")],
    "strided transposed": lambda: [layers.Conv2DTranspose(3, 1, strides=2, name="b")],
    "several axes": lambda: [layers.EinsumDense("abcd,def->abcef", (None, None, 2, 3), bias_axes="f", name="b")],
}


@pytest.mark.parametrize("name", NOT_EXACT)
def test_constants_that_do_not_fit_a_bias_stay(name):
    model = through(*NOT_EXACT[name]())
    _, report = zoo.remove(model, {"a": mask("0111")})
    assert zoo.left(report)["a"] == 4
    padding, bias = "a constant that is not 0 meets the zero padding of b", "the bias of b cannot take its constant"
    assert report.kept_dead == {"a": (1, bias if name == "several axes" else padding)}


@pytest.mark.parametrize("name", NOT_EXACT)
def test_zeros_go_everywhere(name):
    stack = NOT_EXACT[name]()
    first = layers.Conv2D(4, 1, name="a", use_bias=False, activation="relu")
    model = zoo.vary(keras.Sequential([keras.Input((6, 6, 2)), first, *stack, layers.Dense(2, name="head")]))
    _, report = zoo.remove(model, {"a": mask("0111")})
    assert zoo.left(report)["a"] == 3


INEXACT_ON_THE_WAY = {
    "zero padding": lambda: [layers.ZeroPadding2D(1), layers.Conv2D(3, 3, name="b")],
    "depthwise same": lambda: [layers.DepthwiseConv2D(3, padding="same"), layers.Conv2D(3, 1, name="b")],
    "separable same": lambda: [layers.SeparableConv2D(3, 3, padding="same", name="b")],
}


@pytest.mark.parametrize("name", INEXACT_ON_THE_WAY)
def test_padding_makes_a_constant_vary(name):
    model = through(*INEXACT_ON_THE_WAY[name]())
    _, report = zoo.remove(model, {"a": mask("0111")})
    assert zoo.left(report)["a"] == 4
    assert report.kept_dead == {"a": (1, "tied to channels that vary")}


def test_zero_padding_of_nothing_changes_nothing():
    _, report = zoo.remove(through(layers.ZeroPadding2D(0), layers.Conv2D(3, 3)), {"a": mask("0111")})
    assert zoo.left(report)["a"] == 3


def test_a_shared_reader_takes_a_constant_that_is_the_same_in_all_its_calls():
    def model():
        inputs = keras.Input((4, 3))
        one, two = (layers.Dense(4, name=name, activation="sigmoid") for name in "ab")
        head = layers.Dense(2, name="head")
        return keras.Model(inputs, [head(one(inputs)), head(two(inputs))])

    kept = {"a": mask("0111"), "b": mask("0111")}
    shared = zoo.vary(model())
    _, report = zoo.remove(shared, kept)
    assert zoo.left(report)["a"] == 4
    assert report.kept_dead["a"] == (1, "not the same constant in all calls of head")
    shared = zoo.vary(model())
    shared.get_layer("a").bias.assign(shared.get_layer("b").bias)
    _, report = zoo.remove(shared, kept)
    assert zoo.left(report) == {"a": 3, "b": 3, "head": 2}


def test_positions_that_are_summed_are_not_forgotten():
    """An equation that sums the positions adds a constant once for each of them."""
    inputs = keras.Input((5, 3))
    x = layers.Dense(4, name="a", activation="sigmoid")(inputs)
    x = layers.EinsumDense("abc,cd->ad", (3,), bias_axes="d", name="b")(x)
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    _, report = zoo.remove(model, {"a": mask("0111")})
    assert report.kept_dead == {"a": (1, "b reads them along another axis")}


def test_an_outlier_that_is_not_finite_stays_where_it_is():
    for value in (np.nan, np.inf):
        model = through(layers.Dense(3, name="b"))
        kernel = np.asarray(model.get_layer("b").kernel).copy()
        kernel[1, 2] = value
        model.get_layer("b").kernel.assign(kernel)
        smaller, report = scc_tf.remove_channels(model, {"a": mask("0111"), "b": mask("110")})
        assert zoo.left(report) == {"a": 3, "b": 2, "head": 2}
        assert all(np.isfinite(w).all() for w in smaller.get_weights())
        smaller, _ = scc_tf.remove_channels(model, {"a": mask("0111")})
        np.testing.assert_array_equal(np.isfinite(smaller.get_layer("b").bias), True)


def test_a_dead_channel_that_stays_is_zeroed_even_if_it_was_not_finite():
    inputs = keras.Input((3,))
    x = layers.Add()([layers.Dense(2, name="a")(inputs), layers.Dense(2, name="b")(inputs)])
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    kernel = np.asarray(model.get_layer("a").kernel).copy()
    kernel[0, 1] = np.nan
    model.get_layer("a").kernel.assign(kernel)
    _, report = zoo.remove(model, {"a": mask("10")})
    assert report.kept_dead == {"a": (1, "tied to channels that vary")}
