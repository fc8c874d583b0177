"""Which integers and floats a kernel becomes, and what is said about it."""

import keras
import numpy as np
import pytest
from tflite_files import (
    conv_norm,
    conv_relu_norm,
    depthwise,
    inputs,
    operators,
    randomize,
    relative_error,
    run,
    same_but_for_signs,
    sequential,
    stored_matrices,
    transposed,
)

from scc_tf import layers
from scc_tf.export import export_tflite


def with_codes(layer, codes, exponent=-6.0, bits=8.0):
    """Give a built layer exactly these codes."""
    fmt = layer.formats[0]
    fmt.bit_depth.assign(np.full(fmt.channels, bits))
    fmt.exponent.assign(np.full(fmt.channels, exponent))
    layer.kernel.assign(np.float32(codes) * 2.0**exponent)
    np.testing.assert_array_equal(layer.codes(), codes)


def codes_between(low, high, shape, seed=0):
    codes = np.random.default_rng(seed).integers(low, high + 1, shape)
    codes.reshape(-1)[:2] = low, high
    return codes


def dense_with(low, high, bits=8.0):
    layer = layers.Dense(4, name="dense")
    model = keras.Sequential([keras.Input((9,)), layer])
    with_codes(layer, codes_between(low, high, (9, 4)), bits=bits)
    return model


def conv_with(low, high, bits=8.0):
    layer = layers.Conv2D(4, 3, name="conv")
    model = keras.Sequential([keras.Input((8, 8, 3)), layer])
    with_codes(layer, codes_between(low, high, (3, 3, 3, 4)), bits=bits)
    return model


def only_row(report):
    assert len(report.kernels) == 1
    return report.kernels[0]


@pytest.mark.slow
@pytest.mark.parametrize("net", [dense_with, conv_with], ids=lambda net: net.__name__)
def test_minus_128_is_stored_but_not_given_to_integer_kernels(net, exported):
    assert exported(net, -128, 127)[2].fallbacks == ()
    model, path, report = exported(net, -128, 127, compute="dynamic")
    assert only_row(report).type == "int8"
    assert only_row(report).compute == "float"
    assert "-128" in report.fallbacks[0][1]
    assert stored_matrices(path)[0][0].min() == -128
    assert relative_error(path, model) < 1e-5


@pytest.mark.slow
def test_minus_128_behind_a_negative_factor_takes_a_negative_scale(tmp_path):
    conv, norm = layers.Conv2D(4, 3, name="conv"), keras.layers.BatchNormalization()
    model, path = sequential((8, 8, 3), conv, norm), tmp_path / "model.tflite"
    with_codes(conv, codes_between(-128, 127, (3, 3, 3, 4)))
    norm.gamma.assign([-1, -2, 1, 1])
    assert only_row(export_tflite(model, path)).type == "int8"
    matrix, scales = stored_matrices(path)[0]
    assert (scales < 0).tolist() == [True, True, False, False]
    assert same_but_for_signs(matrix, np.array(conv.codes()).reshape(27, 4).T)
    assert relative_error(path, model) < 1e-5


@pytest.mark.slow
def test_a_negative_factor_otherwise_turns_the_integers(tmp_path):
    model, path = conv_norm(), tmp_path / "model.tflite"
    model.layers[1].gamma.assign([1, -1, 1, -1, 1])
    export_tflite(model, path)
    matrix, scales = stored_matrices(path)[0]
    codes = np.array(model.get_layer("conv").codes()).reshape(27, 5).T
    np.testing.assert_array_equal(matrix, codes * np.array([1, -1, 1, -1, 1])[:, None])
    assert (scales > 0).all()


@pytest.mark.slow
def test_a_factor_of_zero_is_a_channel_of_zeros(tmp_path):
    model, path = conv_norm(), tmp_path / "model.tflite"
    model.layers[1].gamma.assign([1, 0, 1, 1, 1])
    assert export_tflite(model, path, compute="dynamic").fallbacks == ()
    matrix, scales = stored_matrices(path)[0]
    assert not matrix[1].any()
    assert scales.min() > 0
    assert relative_error(path, model) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["float", "dynamic", "int8"])
@pytest.mark.parametrize(("bits", "kind"), [(9, "float16"), (11, "float16"), (14, "float32"), (20, "float32")])
def test_codes_beyond_int8_become_floats(bits, kind, compute, exported):
    model, path, report = exported(conv_with, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, bits, compute=compute)
    assert only_row(report).type == kind
    assert only_row(report).bytes == 108 * (2 if kind == "float16" else 4)
    assert report.fallbacks[0][0] == "conv"
    assert "do not fit int8" in report.fallbacks[0][1]
    assert relative_error(path, model) < 1e-5  # nothing here can be rounded


@pytest.mark.slow
def test_a_folded_factor_that_float16_does_not_hold_means_float32(tmp_path):
    conv = layers.Conv2D(4, 3, name="conv")
    model, path = sequential((8, 8, 3), conv, keras.layers.BatchNormalization()), tmp_path / "model.tflite"
    with_codes(conv, codes_between(-200, 200, (3, 3, 3, 4)), bits=9)
    assert only_row(export_tflite(model, path)).type == "float32"
    assert relative_error(path, model) < 1e-5


@pytest.mark.slow
def test_floats_keep_the_multiplication_behind_them(tmp_path):
    model, path = conv_relu_norm(), tmp_path / "model.tflite"
    with_codes(model.get_layer("conv"), codes_between(-200, 200, (3, 3, 3, 5)), bits=9)
    assert export_tflite(model, path).kernels[0].type == "float16"
    assert "MUL" in [name for name, _ in operators(path)]
    assert relative_error(path, model) < 1e-5


FEW = (-7, 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "span", "compute", "storage", "kind"),
    [
        (dense_with, FEW, "float", "int8", "int8"),
        (dense_with, FEW, "float", "auto", "int8"),
        (dense_with, FEW, "float", "int4", "int4"),
        (dense_with, FEW, "dynamic", "auto", "int4"),
        (dense_with, FEW, "dynamic", "int4", "int4"),
        (dense_with, FEW, "int8", "auto", "int4"),
        (dense_with, (-8, 7), "float", "int4", "int4"),
        (dense_with, (-8, 7), "dynamic", "int4", "int8"),
        (dense_with, (-8, 8), "float", "int4", "int8"),
        (conv_with, FEW, "dynamic", "auto", "int8"),
        (conv_with, FEW, "dynamic", "int4", "int4"),
        (conv_with, FEW, "int8", "int4", "int4"),
        (conv_with, (-8, 7), "float", "int4", "int4"),
        (conv_with, (-8, 7), "dynamic", "int4", "int8"),
    ],
)
def test_int4_where_it_fits_and_computes(net, span, compute, storage, kind, exported):
    model, path, report = exported(net, *span, compute=compute, storage=storage)
    assert report.fallbacks == ()
    row = only_row(report)
    assert row.type == kind
    assert row.bytes == (row.weights if kind == "int8" else row.weights // 2)
    assert relative_error(path, model) < (1e-5 if compute == "float" else 0.05)
    codes = np.array(model.layers[-1].codes()).reshape(-1, 4).T
    np.testing.assert_array_equal(stored_matrices(path)[0][0], codes)


def three_bits(net):
    model = net()
    model.layers[0].bit_depth.assign(np.full(model.layers[0].bit_depth.shape, 3.0))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("net", [depthwise, transposed], ids=lambda net: net.__name__)
@pytest.mark.parametrize(("compute", "kind"), [("float", "int4"), ("dynamic", "int8"), ("int8", "int8")])
def test_int4_only_where_integer_kernels_take_it_or_it_is_unpacked_first(net, compute, kind, exported):
    model, path, report = exported(three_bits, net, compute=compute, storage="int4")
    assert only_row(report).type == kind
    assert relative_error(path, model) < (1e-5 if compute == "float" else 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "compute", "storage", "expected"),
    [
        (conv_with, "float", "int8", [("DEQUANTIZE", 5), ("CONV_2D", 1)]),
        (conv_with, "float", "int4", [("DEQUANTIZE", 6), ("CONV_2D", 1)]),
        (conv_with, "dynamic", "int8", [("CONV_2D", 5)]),
        (conv_with, "dynamic", "int4", [("CONV_2D", 7)]),
        (dense_with, "dynamic", "int8", [("FULLY_CONNECTED", 12)]),
        (dense_with, "dynamic", "int4", [("FULLY_CONNECTED", 12)]),
        (conv_with, "int8", "int8", [("QUANTIZE", 1), ("CONV_2D", 3), ("DEQUANTIZE", 2)]),
        (dense_with, "int8", "int8", [("QUANTIZE", 1), ("FULLY_CONNECTED", 4), ("DEQUANTIZE", 2)]),
    ],
)
def test_operators_say_which_version_they_need(net, compute, storage, expected, exported):
    _, path, _ = exported(net, *FEW, compute=compute, storage=storage)
    assert operators(path) == expected


def half_stock():
    stock, norm = keras.layers.Conv2D(4, 3, name="stock"), keras.layers.BatchNormalization()
    return sequential((8, 8, 3), stock, norm, keras.layers.Flatten(), layers.Dense(3, name="head"))


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["float", "dynamic", "int8"])
def test_layers_that_do_not_self_compress_stay_float(compute, exported):
    model, path, report = exported(half_stock, compute=compute)
    assert [(row.layer, row.type) for row in report.kernels] == [("stock", "float32"), ("head", "int8")]
    assert report.fallbacks == (("stock", "its layer is not self-compressing"),)
    assert relative_error(path, model) < (1e-5 if compute == "float" else 0.1)


@pytest.mark.slow
def test_an_embedding_is_reported_and_stays_float(tmp_path):
    words = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(11, 6, name="words")(words)
    model = randomize(keras.Model(words, layers.Dense(3, name="head")(keras.layers.Flatten()(x))))
    path = tmp_path / "model.tflite"
    samples = np.random.default_rng(0).integers(0, 11, (8, 4)).astype(np.int32)
    for compute, bound in (("float", 1e-6), ("int8", 0.02)):
        data = {"representative_data": samples} if compute == "int8" else {}
        report = export_tflite(model, path, compute=compute, **data)
        assert report.fallbacks == (("words", "Embedding does not self-compress"),)
        np.testing.assert_allclose(run(path, samples), model(samples), atol=bound)


@pytest.mark.slow
def test_a_stage_of_floats_between_integers(tmp_path):
    """Float16 and -128 between layers with int8 activations."""
    stack = [layers.Dense(6, activation="relu", name=f"dense{i}") for i in range(4)]
    model, path = sequential((9,), *stack), tmp_path / "model.tflite"
    with_codes(stack[1], codes_between(-300, 300, (6, 6)), bits=10, exponent=-9.0)
    with_codes(stack[2], codes_between(-128, 127, (6, 6)), exponent=-8.0)
    report = export_tflite(model, path, compute="int8", representative_data=inputs(model))
    assert [(row.type, row.compute) for row in report.kernels] == [
        ("int8", "integer"),
        ("float16", "float"),
        ("int8", "float"),
        ("int8", "integer"),
    ]
    assert [layer for layer, _ in report.fallbacks] == ["dense1", "dense2"]
    assert relative_error(path, model) < 0.05
