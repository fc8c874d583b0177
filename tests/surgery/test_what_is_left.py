"""Exact shapes after a removal: what falls with a channel, and what holds it."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers

import scc_tf

mask = zoo.mask


def varied(name):
    return zoo.without_offsets(zoo.vary(zoo.NETWORKS[name]()))


def shapes(model):
    """``{layer: shape of its output without the batch}``."""
    return {layer.name: layer.output.shape[1:] for layer in model.layers}


def removed(model, kept):
    """Remove, check the contract, and return ``(smaller, channels that are left, report)``."""
    smaller, report = zoo.remove(model, kept)
    return smaller, zoo.left(report), report


def test_a_chain():
    smaller, left, _ = removed(varied("chain"), {"a": mask("101101"), "b": mask("01010"), "c": mask("1110000")})
    assert left == {"a": 4, "b": 2, "c": 3, "d": 3}
    assert smaller.get_layer("b").kernel.shape == (3, 3, 4, 2)
    assert smaller.get_layer("c").kernel.shape == (3 * 3 * 2, 3)
    assert smaller.get_layer("batch_normalization").gamma.shape == (4,)


@pytest.mark.slow
def test_flatten_keeps_the_weights_of_each_position():
    model = varied("chain")
    smaller, _, _ = removed(model, {"b": mask("01010")})
    kernel = np.asarray(model.get_layer("c").kernel).reshape(3, 3, 5, 7)[:, :, [1, 3]].reshape(18, 7)
    np.testing.assert_array_equal(smaller.get_layer("c").kernel, kernel)


@pytest.mark.slow
def test_addends_stand_and_fall_together():
    model = varied("residual")
    _, left, report = removed(model, {"stem": mask("001111"), "b": mask("010111"), "c": mask("111000")})
    assert left == {"stem": 6, "a": 6, "b": 6, "c": 6, "d": 6, "e": 6, "head": 2}
    assert report.kept_dead == {k: (n, "tied to channels that vary") for k, n in (("stem", 2), ("b", 2), ("c", 3))}
    _, left, _ = removed(varied("residual"), dict.fromkeys(["stem", "b", "c", "d", "e"], mask("010111")))
    assert left == {"stem": 4, "a": 6, "b": 4, "c": 4, "d": 4, "e": 4, "head": 2}


@pytest.mark.slow
def test_a_channel_of_the_middle_of_a_branch_goes_alone():
    _, left, _ = removed(varied("residual"), {"a": mask("001111")})
    assert left == {"stem": 6, "a": 4, "b": 6, "c": 6, "d": 6, "e": 6, "head": 2}


@pytest.mark.slow
def test_a_depthwise_kernel_follows_its_inputs():
    smaller, left, _ = removed(varied("depthwise"), {"a": mask("0101")})
    assert left["dw"] == 4
    assert smaller.get_layer("dw").kernel.shape == (3, 3, 2, 2)
    assert smaller.get_layer("b").kernel.shape == (1, 1, 4, 5)


@pytest.mark.slow
def test_a_depthwise_channel_alone_stays_and_takes_its_input_along_with_all_its_channels():
    _, left, report = removed(varied("depthwise"), {"dw": mask("01111111")})
    assert left["dw"] == 8
    assert report.kept_dead == {"dw": (1, "tied to channels that vary")}
    _, left, _ = removed(varied("depthwise"), {"dw": mask("00111111")})
    assert (left["a"], left["dw"]) == (3, 6)


@pytest.mark.slow
def test_a_depthwise_kernel_of_one_input_loses_channels_one_by_one():
    for layer, label in (
        (layers.DepthwiseConv2D(3, depth_multiplier=4, name="x"), "x"),
        (layers.SeparableConv2D(5, 3, depth_multiplier=4, name="x"), "x/depthwise_kernel"),
    ):
        model = zoo.vary(keras.Sequential([keras.Input((5, 5, 1)), layer, layers.Conv2D(2, 1, name="head")]))
        for changed in (model, scc_tf.self_compress(model, initial_bit_depth=6)):
            smaller, left, _ = removed(changed, {label: mask("1010")})
            assert left[label] == smaller.get_layer("x").depth_multiplier == 2


@pytest.mark.slow
def test_groups_keep_equal_numbers():
    model = varied("grouped")
    _, left, report = removed(model, {"g": mask("011111111")})
    assert left == {"a": 6, "g": 9, "each": 9, "b": 4, "head": 2}
    assert report.kept_dead == {"g": (1, "tied to channels that vary")}
    smaller, left, _ = removed(varied("grouped"), {"g": mask("011011011"), "a": mask("010101")})
    assert left == {"a": 3, "g": 6, "each": 6, "b": 4, "head": 2}
    assert (smaller.get_layer("g").groups, smaller.get_layer("each").groups) == (3, 6)
    assert smaller.get_layer("g").kernel.shape == (3, 3, 1, 6)


def test_concatenation_shifts_the_inputs():
    smaller, left, _ = removed(varied("concatenated"), {"a": mask("1001"), "b": mask("01010"), "c": mask("001")})
    assert left == {"a": 2, "b": 2, "c": 1, "d": 6, "e": 6, "head": 2}
    assert shapes(smaller)["concatenate"] == (8, 8, 2 + 2 + 3)
    assert shapes(smaller)["concatenate_1"] == (8, 8, 2 + 2 + 3 + 1)


def test_positions_that_are_concatenated_have_the_same_channels():
    _, left, report = removed(varied("concatenated"), {"d": mask("011110"), "e": mask("010111")})
    assert (left["d"], left["e"]) == (5, 5)
    assert {k: n for k, (n, _) in report.kept_dead.items()} == {"d": 1, "e": 1}


@pytest.mark.slow
def test_skip_connections_of_a_unet():
    smaller, left, _ = removed(varied("unet"), {"b": mask("101010"), "up1": mask("110000"), "up2": mask("0111")})
    assert left == {"a": 4, "b": 3, "c": 8, "up1": 2, "d": 5, "up2": 3, "out": 1}
    assert smaller.get_layer("up1").kernel.shape == (2, 2, 2, 8)  # filters before inputs
    assert smaller.output_shape == (None, 12, 12, 1)


@pytest.mark.slow
def test_a_gate_goes_with_what_it_gates():
    smaller, left, _ = removed(varied("squeeze_and_excite"), {"a": mask("111100"), "squeeze": mask("011")})
    assert left == {"a": 4, "squeeze": 2, "excite": 4, "b": 4, "head": 2}
    assert smaller.get_layer("reshape").target_shape == (1, 1, 4)


def test_what_a_closed_gate_lets_through_does_not_matter():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(4, 1, name="a")(inputs)
    gate = layers.Conv2D(4, 4, name="gate", activation="relu", use_bias=False)(inputs)
    outputs = layers.Conv2D(2, 1, name="head")(layers.Multiply()([x, gate]))
    _, left, _ = removed(zoo.vary(keras.Model(inputs, outputs)), {"gate": mask("0101")})
    assert left == {"a": 2, "gate": 2, "head": 2}
    both = zoo.vary(keras.Model(inputs, [outputs, layers.Conv2D(2, 1, name="reads a")(x)]))
    _, left, report = removed(both, {"gate": mask("0101")})
    assert left["a"] == left["gate"] == 4
    assert report.kept_dead == {"gate": (2, "tied to channels that vary")}


def test_a_gate_that_is_half_open_keeps_its_channel():
    _, left, report = removed(varied("squeeze_and_excite"), {"excite": mask("111100")})
    assert left["a"] == left["excite"] == 6
    assert report.kept_dead == {"excite": (2, "tied to channels that vary")}


@pytest.mark.slow
def test_reshapes_and_equations():
    whole = np.arange(96) % 6 < 4
    smaller, left, _ = removed(
        varied("generator"), {"a": whole, "b": mask("1010"), "c": mask("11100"), "e": mask("000111")}
    )
    assert left == {"a": 64, "b": 2, "c": 3, "d": 3, "e": 3, "f": 4}
    assert smaller.get_layer("reshape").target_shape == (4, 4, 4)
    assert smaller.get_layer("reshape_1").target_shape == (81, 2)
    assert smaller.get_layer("e").kernel.shape == (3, 3)
    assert smaller.get_layer("f").kernel.shape == (3, 2, 2)


def test_a_unit_at_one_position_stays():
    whole = np.arange(96) != 7
    _, left, report = removed(varied("generator"), {"a": whole})
    assert left["a"] == 96
    assert report.kept_dead == {"a": (1, "tied to channels that vary")}


def test_a_reshape_ties_the_channels_that_it_mixes():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Conv2D(6, 1, name="a", use_bias=False),
            layers.Reshape((24, 4)),  # even channels make the columns 0 and 2
            layers.Conv1D(4, 3, name="b", use_bias=False),
            layers.Reshape((-1, 2)),
            layers.Reshape((4, -1, 2)),
            layers.Flatten(),
            layers.Dense(2, name="head"),
        ]
    )
    smaller, left, _ = removed(model, {"a": mask("101010"), "b": mask("0101")})
    assert left == {"a": 3, "b": 2, "head": 2}
    assert shapes(smaller)["reshape"] == (24, 2)
    assert shapes(smaller)["reshape_2"] == (4, 11, 1)
    _, left, report = removed(model, {"a": mask("001010")})
    assert left["a"] == 3
    assert report.kept_dead["a"] == (1, "tied to channels that vary")


@pytest.mark.slow
def test_channels_that_are_padded_with_zeros():
    """As in `lab.models.resnet20`."""

    def model(shared):
        inputs = keras.Input((4, 4, 3))
        pad = layers.ZeroPadding2D(((0, 0), (2, 3)), data_format="channels_first", name="pad")
        x = pad(layers.Conv2D(4, 1, name="a", use_bias=False)(inputs))
        x = layers.Add()([x, layers.Conv2D(9, 1, name="b", use_bias=False)(inputs)])
        if shared:
            x = layers.Concatenate()([x, pad(layers.Conv2D(4, 1, name="c", use_bias=False)(inputs))])
        return keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x))

    b = mask("011011110")
    smaller, left, _ = removed(model(shared=False), {"a": mask("1010"), "b": b})
    assert (left["a"], left["b"]) == (3, 6)
    assert shapes(smaller)["pad"][-1] == 6
    assert smaller.get_layer("pad").padding == ((0, 0), (1, 2))
    _, left, _ = removed(model(shared=True), {"a": mask("1010"), "b": b, "c": mask("1010")})
    assert (left["a"], left["b"], left["c"]) == (3, 6, 3)
    smaller, _, _ = removed(model(shared=False), {"a": mask("1010"), "b": mask("001010000")})
    assert smaller.get_layer("pad").padding == ((0, 0), (0, 0))


def test_a_learned_slope_is_cut_along():
    smaller, left, _ = removed(varied("same_padding"), {"b": mask("01101")})
    assert left == {"a": 6, "b": 3, "c": 2}
    assert smaller.get_layer("p_re_lu").alpha.shape == (1, 1, 3)


def test_channels_first():
    """Not run: the processor has no such convolutions."""
    first = {"data_format": "channels_first"}
    stack = [
        layers.Conv2D(6, 3, name="a", activation="relu", use_bias=False, **first),
        layers.BatchNormalization(axis=1, center=False),
        layers.MaxPooling2D(**first),
        layers.ZeroPadding2D(1, **first),
        layers.DepthwiseConv2D(3, name="dw", use_bias=False, **first),
        layers.SpatialDropout2D(0.1, **first),
        layers.Flatten(**first),
        layers.Dense(2, name="head"),
    ]
    model = keras.Sequential([keras.Input((3, 8, 8)), *stack])
    zoo.without_offsets(model)
    smaller, report = scc_tf.remove_channels(model, {"a": mask("110001")})
    assert zoo.left(report) == {"a": 3, "dw": 3, "head": 2}
    assert shapes(smaller)["dw"] == (3, 3, 3)
    last = keras.Sequential([keras.Input((3, 3, 6)), layers.Flatten(), layers.Dense(2)])
    last.set_weights(model.layers[-1].get_weights())  # Keras flattens channels that come first last
    kernel = np.asarray(last.layers[-1].kernel).reshape(9, 6, 2)[:, [0, 1, 5]].reshape(27, 2)
    np.testing.assert_array_equal(smaller.get_layer("head").kernel, kernel)


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True], ids=["stock", "twins"])
def test_half_precision(compressed):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = zoo.vary(zoo.NETWORKS["chain"]())
    finally:
        keras.config.set_dtype_policy("float32")
    model = scc_tf.self_compress(model, initial_bit_depth=6) if compressed else model
    smaller, report = zoo.remove(model, {"a": mask("101101"), "c": mask("1110000")}, tolerance=0.03)
    assert zoo.left(report) == {"a": 4, "b": 5, "c": 3, "d": 3}
    assert smaller.get_layer("a").dtype_policy.name == "mixed_bfloat16"
    assert {w.dtype for w in smaller.weights} == {"float32"}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float16", 0.02)])
def test_other_precisions(dtype, tolerance):
    activations = [
        layers.PReLU(shared_axes=[1, 2], dtype=dtype),
        layers.Rescaling(2.0, 1.0, dtype=dtype),
        layers.ELU(dtype=dtype),
        layers.Activation("gelu", dtype=dtype),
    ]
    stack = [layers.Conv2D(4, 1, name="a", dtype=dtype), *activations, layers.Conv2D(2, 3, name="head", dtype=dtype)]
    model = zoo.vary(keras.Sequential([keras.Input((5, 5, 3), dtype=dtype), *stack]))
    _, report = zoo.remove(model, {"a": mask("1010")}, tolerance)
    assert zoo.left(report)["a"] == 2


def test_multiple_inputs_and_outputs():
    one, two = keras.Input((4, 4, 3), name="one"), keras.Input((4, 4, 2), name="two")
    x = layers.Conv2D(4, 1, name="a", activation="relu")(one)
    y = layers.Conv2D(5, 1, name="b", activation="relu")(two)
    z = layers.Conv2D(4, 1, name="c", activation="relu")(layers.Concatenate()([x, y]))
    outputs = {"seen": x, "sum": layers.Dense(2, name="head")(z), "as it is": two}
    model = zoo.vary(keras.Model({"one": one, "two": two}, outputs))
    kept = {"a": mask("1010"), "b": mask("10101"), "c": mask("1010")}
    smaller, report = scc_tf.remove_channels(model, kept)
    assert zoo.left(report) == {"a": 4, "b": 3, "c": 2, "head": 2}
    assert report.kept_dead == {"a": (2, "an output of the model")}
    zoo.without(model, kept)
    inputs = {"one": zoo.examples(model)[0], "two": zoo.examples(model)[1]}
    expected, actual = model(inputs), smaller(inputs)
    assert list(actual) == list(expected)
    for name in outputs:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, atol=1e-5)
