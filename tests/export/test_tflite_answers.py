"""What a TFLite file answers: compared with Keras, saved from int8 where that would ruin it, told otherwise."""

import types

import keras
import numpy as np
import pytest
from tflite_files import conv_norm, randomize

import scc_tf
from scc_tf import layers
from scc_tf.export import export_tflite, run_tflite
from scc_tf.export.tflite import answers
from scc_tf.export.tflite.answers import likeness
from scc_tf.export.tflite.flatbuffer import FLOAT32, TFLiteFile
from scc_tf.export.tflite.int8 import too_costly
from scc_tf.safety.contract import Contract

K = keras.layers
RANDOM = np.random.default_rng(0)


def test_the_worst_output_counts():
    wanted = [np.eye(4), np.array([[0.0], [1.0]])]
    same = likeness(wanted, wanted)
    assert (same.error, same.agreement) == (0.0, 1.0)
    swapped = likeness([np.eye(4)[[0, 1, 3, 2]], wanted[1]], wanted)
    assert swapped.agreement == 0.5 and swapped.error > 1
    assert likeness([wanted[0], 1 - wanted[1]], wanted).agreement == 0.0
    assert likeness([np.full((4, 4), np.nan), wanted[1]], wanted).error == np.inf


def test_what_is_no_choice_of_classes_has_no_agreement():
    picture = RANDOM.normal(size=(5, 6))
    assert likeness([picture], [picture], [picture]).agreement is None
    assert likeness([picture], [picture], [-picture]).agreement == 1.0
    numbers = np.array([[3.0], [-2.0]])
    assert likeness([numbers], [numbers]).agreement is None
    assert likeness([np.array([1, 2])], [np.array([1, 3])]).error == 0.5


def test_equally_good_classes_agree():
    level = np.float32([[1, 1, 0], [2, 0, 2]])
    assert likeness([level + np.float32([[0, 1e-7, 0], [0, 0, 1e-7]])], [level]).agreement == 1.0


def test_the_fewest_tensors_stay_float():
    costs = {"mask": np.inf, "scale": 0.4, "a": 0.001, "b": 0.001}
    assert too_costly(costs, 0.1) == {"mask", "scale"}
    assert too_costly(costs, 1.0) == {"mask"}
    assert too_costly({"a": np.nan}, 1.0) == {"a"}


def several():
    a, b = keras.Input((4,), name="z"), keras.Input((3, 2), name="a b")
    hidden = layers.Dense(6, "relu")(K.Concatenate()([a, K.Flatten()(b)]))
    model = keras.Model([a, b], {"y": layers.Dense(3)(hidden), "x": layers.Dense(1, "sigmoid")(hidden)})
    return model, {"z": RANDOM.normal(size=(20, 4)), "a b": RANDOM.normal(size=(20, 3, 2))}


def tokens():
    words = [keras.Input((5,), dtype="int32"), K.Embedding(7, 4), K.Flatten(), layers.Dense(3)]
    return keras.Sequential(words), RANDOM.integers(0, 7, (20, 5))


def bytes_in():
    model = [keras.Input((5,), dtype="uint8"), K.Rescaling(1 / 255), layers.Dense(3)]
    return keras.Sequential(model), RANDOM.integers(0, 256, (20, 5), np.uint8)


def recurrent():
    model = [keras.Input((6, 4)), layers.Dense(4), K.Bidirectional(K.GRU(5)), layers.Dense(3)]
    return keras.Sequential(model), RANDOM.normal(size=(20, 6, 4))


@pytest.mark.slow
@pytest.mark.parametrize("net", [several, tokens, bytes_in, recurrent])
def test_all_inputs_and_outputs_are_compared(net, tmp_path):
    model, data = net()
    report = export_tflite(model, tmp_path / "model.tflite", compute="int8", representative_data=data)
    assert 0 < report.error < 0.1 and report.agreement >= 0.9
    assert report.compared_on == "20 of the representative data"


def constant_columns():
    """A network behind a normalization whose variance is next to nothing in some columns."""
    x = RANDOM.normal(size=(128, 8)).astype(np.float32)
    x[:, 5:] = 0
    norm = K.Normalization()
    norm.adapt(x)
    model = keras.Sequential([keras.Input((8,)), norm, layers.Dense(16, "relu"), layers.Dense(4)])
    return randomize(model, 5, 7), x


def masked_attention():
    x = keras.Input((6, 8))
    hidden = x + K.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    return keras.Model(x, layers.Dense(4)(hidden)), RANDOM.normal(size=(64, 6, 8))


@pytest.mark.slow
@pytest.mark.parametrize("net", [constant_columns, masked_attention])
def test_what_int8_would_ruin_stays_float(net, tmp_path):
    model, x = net()
    path = tmp_path / "model.tflite"
    report = export_tflite(model, path, compute="int8", representative_data=x)
    assert report.agreement >= 0.95 and report.error < 0.1
    np.testing.assert_array_less(np.std(run_tflite(path, x) - np.array(model(x))), 0.1 * np.std(model(x)))
    (kept,) = [reason for name, reason in report.fallbacks if "operators" in name]
    assert "int8 there would spoil the answers" in kept and len(kept) < 250
    stored = {row.type for row in report.kernels if row.layer.startswith("dense")}
    assert stored == {"int8"}


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False], ids=["representative", "made up"])
def test_integer_arithmetic_that_is_off_is_told(given, tmp_path, monkeypatch):
    model, x = constant_columns()
    monkeypatch.setattr(answers, "LOSSY", 0.0)
    monkeypatch.setattr("absl.logging.warning", lambda *words: told.append(words[0] % words[1:]))
    told = []
    data = {"representative_data": x} if given else {}
    report = export_tflite(model, tmp_path / "m.tflite", compute="dynamic", **data)
    assert len(told) == 1 and "\n" not in told[0]
    assert f"{100 * report.agreement:.1f} % of the classes are equal" in told[0] and "compute='float'" in told[0]
    asked = "128 of the representative data" if given else "16 made-up inputs"
    assert f"{100 * report.error:.2g} % of their spread, on {asked}" in str(report)


def another_bias(file):
    """The bytes of a file with other floats."""
    for index, tensor in enumerate(file.graph.tensors):
        if tensor.type == FLOAT32 and (values := file.array(index)) is not None:
            file.model.buffers[tensor.buffer].data = (values + np.float32(0.5)).view(np.uint8).ravel()
    return TFLiteFile.packed(file)


@pytest.mark.slow
def test_a_float_file_that_answers_otherwise_is_not_left_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(TFLiteFile, "packed", TFLiteFile.pack, raising=False)
    monkeypatch.setattr(TFLiteFile, "pack", another_bias)
    with pytest.raises(RuntimeError, match="does not answer as"):
        export_tflite(conv_norm(), tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("reference", "safe"), [(1.0, True), (1.2, False)])
def test_the_contract_is_measured_on_the_file(reference, safe, tmp_path):
    model, x = constant_columns()
    labels = np.array(model(x)).argmax(-1)
    model.contract = Contract(types.SimpleNamespace(images=x, labels=labels), reference, 0.1)
    report = export_tflite(model, tmp_path / "model.tflite")
    assert report.safe is safe and report.safety_accuracy > 0.9
    assert report.safety_drop == pytest.approx(reference - report.safety_accuracy)
    assert ("kept" if safe else "BROKEN") in str(report)


@pytest.mark.slow
def test_eight_bits_start_without_the_code_that_integer_kernels_may_not_hold(tmp_path):
    plain = keras.Sequential([keras.Input((20,)), K.Dense(30), K.Dense(4)])
    model = scc_tf.self_compress(plain)
    codes = np.concatenate([np.ravel(layer.codes()) for layer in model.layers if hasattr(layer, "codes")])
    assert np.abs(codes).max() == 127
    report = export_tflite(model, tmp_path / "model.tflite", compute="dynamic")
    assert report.fallbacks == () and {row.compute for row in report.kernels} == {"integer"}
