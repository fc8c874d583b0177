"""Every kind of layer, every way to compute: the outputs are Keras's and the integers the learned ones."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tflite_files import (
    NETS,
    WITHOUT_DELEGATE,
    code_matrices,
    conv_norm,
    conv_relu_norm,
    dead_channels,
    dense_norm_dense,
    einsum,
    inputs,
    operators,
    relative_error,
    residual,
    run,
    same_but_for_signs,
    self_compressing_layers,
    sequential,
    stored_matrices,
)

import scc_tf
from scc_tf import layers
from scc_tf.export import export_tflite

K = keras.layers
each_net = pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)


def assert_learned_integers(path, model):
    """Every kernel of the model is in the file as its codes, and the file has no other one."""
    matrices = [matrix for matrix, _ in stored_matrices(path)]
    kernels = [codes for layer in self_compressing_layers(model) for codes in code_matrices(layer)]
    for codes in kernels:
        assert any(same_but_for_signs(matrix, codes) for matrix in matrices)
    for matrix in matrices:
        assert any(same_but_for_signs(matrix, codes) for codes in kernels)


@pytest.mark.slow
@each_net
def test_weight_only_outputs_are_those_of_keras(net, exported):
    model, path, report = exported(net)
    assert report.fallbacks == ()
    assert {kernel.type for kernel in report.kernels} == {"int8"}
    assert relative_error(path, model) < 1e-5
    if net is not einsum:  # its axes are in another order
        assert_learned_integers(path, model)


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["float", "dynamic"])
def test_rounded_biases_are_those_of_keras(compute, tmp_path):
    given = {
        "bias_exponent": -1,
        "initial_bit_depth": 4,
        "bias_initializer": keras.initializers.RandomNormal(0, 2, seed=1),
    }
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="relu", **given),
            keras.layers.Flatten(),
            layers.Dense(3, **given),
        ]
    )
    path = tmp_path / "model.tflite"
    assert export_tflite(model, path, compute=compute).fallbacks == ()
    assert relative_error(path, model) < (1e-5 if compute == "float" else 0.03)


@pytest.mark.slow
@each_net
def test_dynamic_outputs_are_close_to_those_of_keras(net, exported):
    model, path, report = exported(net, compute="dynamic")
    assert report.fallbacks == ()
    for kernel in report.kernels:
        assert kernel.compute == ("float" if kernel.op == "DEPTHWISE_CONV_2D" else "integer")
    assert relative_error(path, model) < 0.05
    if net is not einsum:
        assert_learned_integers(path, model)


@pytest.mark.slow
@each_net
def test_static_outputs_are_close_to_those_of_keras(net, exported):
    pytest.importorskip("ai_edge_quantizer")
    model, path, report = exported(net, compute="int8")
    assert report.fallbacks == ()
    assert {kernel.compute for kernel in report.kernels} == {"integer"}
    assert relative_error(path, model) < 0.1
    if net is not einsum:
        assert_learned_integers(path, model)


@pytest.mark.slow
def test_without_normalization_the_scales_are_the_learned_steps(exported):
    model, path, _ = exported(einsum)
    (integers, scales), layer = stored_matrices(path)[0], model.layers[-1]

    def in_order(kernel):  # (c, d, e, f) to (e f, c d)
        return np.array(kernel).transpose(2, 3, 0, 1).reshape(12, 16)

    np.testing.assert_array_equal(integers, in_order(layer.codes()))
    np.testing.assert_array_equal(integers * scales[:, None], in_order(layer.quantized()))


@pytest.mark.slow
def test_a_normalization_behind_a_relu_goes_to_the_scales(exported):
    _, path, _ = exported(conv_relu_norm)
    assert "MUL" not in [name for name, _ in operators(path)]
    _, path, _ = exported(conv_relu_norm, storage="float32")
    assert "MUL" in [name for name, _ in operators(path)]


@pytest.mark.slow
def test_one_behind_a_relu_with_a_negative_factor_stays(tmp_path):
    norm = keras.layers.BatchNormalization()
    model, path = sequential((8, 8, 3), layers.Conv2D(5, 3, activation="relu"), norm), tmp_path / "model.tflite"
    norm.gamma.assign([1, -1, 2, 1, 1])
    export_tflite(model, path)
    assert "MUL" in [name for name, _ in operators(path)]
    assert relative_error(path, model) < 1e-5


@pytest.mark.slow
def test_a_normalization_before_a_dense_layer_goes_to_the_activation(exported):
    model, path, _ = exported(dense_norm_dense, compute="dynamic")
    assert [name for name, _ in operators(path)] == ["FULLY_CONNECTED", "MUL", "FULLY_CONNECTED"]
    assert_learned_integers(path, model)


@pytest.mark.slow
def test_channels_without_bits_are_zeros_with_a_usable_scale(exported):
    _, path, _ = exported(dead_channels, compute="dynamic")
    dead = [(matrix[1], scales) for matrix, scales in stored_matrices(path)]
    assert len(dead) == 2
    for row, scales in dead:
        assert not row.any()
        assert scales[1] == scales.max() > 0


@pytest.mark.slow
def test_a_net_without_a_live_channel_is_exported(tmp_path):
    model, path = conv_norm(), tmp_path / "model.tflite"
    model.get_layer("conv").bit_depth.assign(np.zeros(5))
    export_tflite(model, path)
    assert not stored_matrices(path)[0][0].any()
    samples = inputs(model)
    np.testing.assert_allclose(run(path, samples), model(samples), atol=1e-6)


@pytest.mark.slow
def test_several_inputs_and_outputs_keep_their_names(tmp_path):
    a, b = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    dense = layers.Dense(3, name="dense")
    model = keras.Model({"left": a, "right": b}, {"sum": dense(a) + dense(b), "first": dense(a)})
    export_tflite(model, tmp_path / "model.tflite")
    runner = Interpreter(model_path=str(tmp_path / "model.tflite")).get_signature_runner("serving_default")
    values = {"left": np.float32([[1, 2, 3, 4]]), "right": np.float32([[4, 3, 2, 1]])}
    expected = model(values)
    for name, value in runner(**values).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5)


@pytest.mark.slow
def test_residual_net_runs_without_the_default_delegate_too(exported):
    for compute, bound in (("float", 1e-5), ("dynamic", 0.05)):
        model, path, _ = exported(residual, compute=compute)
        assert relative_error(path, model, **WITHOUT_DELEGATE) < bound


KINDS = {
    "self-compressing": scc_tf.self_compress,
    "masked": scc_tf.add_masks,
    "weight-sharing": lambda model: scc_tf.share_weights(model, clusters=5),
    "masked and self-compressing": lambda model: scc_tf.add_masks(scc_tf.self_compress(model)),
    "masked and weight-sharing": lambda model: scc_tf.share_weights(pruned(scc_tf.add_masks(model)), clusters=5),
}


def pruned(model):
    for layer in model.layers:
        if hasattr(layer, "prune"):
            layer.prune(np.abs(layer.kernel) > 0.1)
    return model


def of_kind(kind):
    plain = keras.Sequential(
        [keras.Input((6, 6, 2)), K.Conv2D(4, 3, name="conv"), K.Flatten(), K.Dense(3, name="head")]
    )
    model = KINDS[kind](plain)
    return pruned(model) if kind.startswith("masked") else model


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_compressed_model_is_written(kind, exported):
    for compute, bound in (("float", 1e-5), ("dynamic", 0.05), ("int8", 0.05)):
        model, path, report = exported(of_kind, kind, compute=compute)
        assert relative_error(path, model) < bound
        wanted = "int8" if "self-compressing" in kind else "float32"
        assert [(row.layer, row.type) for row in report.kernels] == [("conv", wanted), ("head", wanted)]
        assert bool(report.fallbacks) == (wanted == "float32")


@pytest.mark.slow
def test_mixed_precision_is_written_as_float32(tmp_path):
    stack = [K.Conv2D(4, 3, dtype="mixed_float16", name="conv"), K.Reshape((4, 16))]
    stack += [K.TimeDistributed(K.Dense(3, dtype="mixed_float16")), K.Flatten()]
    head = K.Dense(3, dtype=keras.DTypePolicy("mixed_float16"), name="head")
    model = scc_tf.self_compress(keras.Sequential([keras.Input((6, 6, 2)), *stack, head]))
    report, path = export_tflite(model, tmp_path / "model.tflite"), tmp_path / "model.tflite"
    assert {row.type for row in report.kernels if row.layer in ("conv", "head")} == {"int8"}
    assert relative_error(path, model) < 0.01  # of float16
