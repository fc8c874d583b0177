"""What the exporter refuses, what it leaves behind, and what it reports."""

import json
import sys

import flatbuffers
import keras
import numpy as np
import pytest
from lab import models
from tflite_files import conv_norm, conv_relu_norm, inputs, nested_shared, relative_error, run, separable
from toy_problem import assert_same, values

from scc_tf import layers
from scc_tf.export import export_tflite
from scc_tf.export.tflite import exporter
from scc_tf.export.tflite.flatbuffer import INT8, TFLiteFile, schema
from scc_tf.export.tflite.samples import representative_samples


def dense():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")])


def two_inputs():
    a, b = keras.Input((4,)), keras.Input((4,))
    return keras.Model([a, b], layers.Dense(3)(a + b))


def unknown_length():
    return keras.Sequential([keras.Input((None, 3)), layers.Conv1D(2, 3)])


def more_than_built_in():
    x = keras.Input((4,))
    return keras.Model(x, keras.ops.erfinv(layers.Dense(3)(x)))


def several_levels():
    x = keras.Input((4,))
    return keras.Model(x, {"a": [layers.Dense(3)(x), x]})


def texts():
    words = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot", name="words")
    return keras.Sequential([keras.Input((1,), dtype="string"), words, layers.Dense(3)])


def remembering():
    memory = keras.layers.LSTM(3, stateful=True, name="memory")
    return keras.Sequential([keras.Input(batch_shape=(1, 5, 4)), memory, layers.Dense(3)])


def infinite():
    model = dense()
    model.layers[-1].kernel.assign(np.full((4, 3), np.inf))
    return model


def integers():
    return keras.Sequential(
        [keras.Input((4,), dtype="int32"), keras.layers.Embedding(3, 2), keras.layers.Flatten(), layers.Dense(3)]
    )


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (dense, {"compute": "int4"}, r"compute to be one of .* Received: compute='int4'"),
        (dense, {"storage": "int2"}, r"storage to be one of .* Received: storage='int2'"),
        (dense, {"storage": "float32", "compute": "dynamic"}, r"compute='float' for storage='float32'"),
        (dense, {"compute": "int8"}, r"Received: representative_data=None"),
        (dense, {"representative_data": np.ones((2, 4))}, r"with compute='int8' only. Received: compute='float'"),
        (dense, {"compute": "int8", "representative_data": []}, r"at least one input"),
        (dense, {"compute": "int8", "representative_data": np.ones((2, 5))}, r"shape \(4,\).*shape=\(5,\)"),
        (dense, {"compute": "int8", "representative_data": [np.ones((2, 1, 4))]}, r"shape \(4,\).*\(2, 1, 4\)"),
        (dense, {"compute": "int8", "representative_data": [(np.ones(4), 1)]}, r"shape \(4,\)"),
        (dense, {"compute": "int8", "representative_data": ["abcd"]}, r"shape \(4,\)"),
        (dense, {"compute": "int8", "representative_data": [[1, 2, 3, np.nan]]}, r"finite"),
        (two_inputs, {"compute": "int8", "representative_data": []}, r"representative_data .* each of the 2 inputs"),
        (
            two_inputs,
            {"compute": "int8", "representative_data": [np.ones((2, 4)), np.ones((3, 4))]},
            r"representative_data .* equally many",
        ),
        (unknown_length, {}, r"known but for the batch. Received: input .* of shape \(None, None, 3\)"),
        (several_levels, {}, r"dict of one level"),
        (texts, {}, r"look them up before the model.*layer 'words', StringLookup"),
        (remembering, {}, r"no state between calls. Received: stateful layer 'memory'"),
        (infinite, {}, r"weights of .* finite"),
        (dense, {"compute": "int8", "representative_data": np.ones((0, 4))}, r"at least one input"),
        (dense, {"compute": "int8", "representative_data": 3}, r"Received: representative_data=3"),
        (dense, {"storage": "float32", "lanes": 2.0}, r"lanes to be a whole number"),
        (integers, {"compute": "int8", "representative_data": np.full((2, 4), 0.5)}, r"numbers of type int32"),
        (more_than_built_in, {}, r"built-in operators of TFLite .*Erfinv"),
        (Subclassed, {}, r"built Sequential or functional Keras model. Received: Subclassed"),
        (lambda: keras.Sequential([layers.Dense(3)]), {}, r"built Sequential or functional"),
        (lambda: "model.keras", {}, r"Received: str"),
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), {}, r"compressed layers"),
    ],
)
def test_bad_arguments_are_named_and_no_file_is_left(model, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=f"(?s)^Expected .*{message}"):
        export_tflite(model(), tmp_path / "model.tflite", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_file_is_refused_before_the_model_is_converted(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "float_bytes", None)
    with pytest.raises(ValueError, match=r"^Expected path .*a folder"):
        export_tflite(dense(), tmp_path)


def test_int8_compute_without_its_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(ValueError, match=r"pip install 'scc_tf\[int8\]'"):
        export_tflite(dense(), tmp_path / "model.tflite", compute="int8", representative_data=np.ones((2, 4)))


def damage(file):
    """The bytes of a file with one weight changed."""
    for tensor in file.graph.tensors:
        if tensor.type == INT8:
            weights = file.model.buffers[tensor.buffer].data = np.array(file.model.buffers[tensor.buffer].data)
            weights[0] ^= 1
    return TFLiteFile.packed(file)


def other_scale(file):
    for tensor in file.graph.tensors:
        if tensor.type == INT8:
            tensor.quantization.scale = tensor.quantization.scale * np.float32(2)
    return TFLiteFile.packed(file)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "message"), [(damage, "another values"), (other_scale, "another scale")])
def test_a_file_that_reads_back_differently_is_not_left_behind(change, message, monkeypatch, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_text("what was there")
    monkeypatch.setattr(TFLiteFile, "packed", TFLiteFile.pack, raising=False)
    monkeypatch.setattr(TFLiteFile, "pack", change)
    with pytest.raises(RuntimeError, match=f"kernel dense as learned: {message}"):
        export_tflite(dense(), path)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_the_model_is_untouched(tmp_path):
    model = conv_relu_norm()
    before = values(model.weights)
    export_tflite(model, tmp_path / "model.tflite", compute="dynamic")
    assert_same(values(model.weights), before)


@pytest.mark.slow
def test_report_counts_bytes_and_prints_a_table(tmp_path):
    model, path = separable(), tmp_path / "folder" / "model.tflite"
    report = export_tflite(model, path, compute="dynamic")
    assert report.bytes == path.stat().st_size
    reference = export_tflite(model, tmp_path / "float.tflite", storage="float32")
    assert report.float32_bytes == reference.float32_bytes == reference.bytes
    assert [(row.layer, row.op, row.compute) for row in report.kernels] == [
        ("sep/depthwise_kernel", "DEPTHWISE_CONV_2D", "float"),
        ("sep/pointwise_kernel", "CONV_2D", "integer"),
    ]
    assert [(row.channels, row.weights, row.bytes) for row in report.kernels] == [(3, 27, 27), (4, 12, 12)]
    shown = str(report).splitlines()
    assert len(shown) == 5
    assert "sep/pointwise_kernel" in shown[2]
    assert f"{report.bytes:,} bytes" in shown[3]
    assert "answers differ by" in shown[4] and "16 made-up inputs" in shown[4]
    record = json.loads(report.to_json())
    assert record["kernels"][0]["type"] == "int8"
    assert record["compute"] == "dynamic"


@pytest.mark.slow
def test_fallbacks_are_printed(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="stock"), layers.Dense(2)])
    assert "fallback stock: its layer is not" in str(export_tflite(model, tmp_path / "model.tflite"))


@pytest.mark.slow
def test_the_float_reference_is_keras_and_needs_no_self_compression(tmp_path):
    plain, path = models.moons_mlp(seed=0), tmp_path / "model.tflite"
    report = export_tflite(plain, path, storage="float32")
    assert {row.type for row in report.kernels} == {"float32"}
    assert [row.layer for row in report.kernels] == ["dense1", "head"]
    assert report.fallbacks == ()
    assert relative_error(path, plain) < 1e-6


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = nested_shared()
    export_tflite(model, tmp_path / "a.tflite")
    export_tflite(model, tmp_path / "b.tflite")
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()


@pytest.mark.slow
def test_stripping_drops_names_and_metadata_but_not_the_signature(tmp_path):
    path = tmp_path / "model.tflite"
    export_tflite(conv_norm(), path)
    file = TFLiteFile(path.read_bytes())
    model, graph = file.model, file.graph
    assert model.description is None
    assert not model.metadata
    ends = {*graph.inputs, *graph.outputs}
    assert all((tensor.name is None) == (index not in ends) for index, tensor in enumerate(graph.tensors))
    assert model.signatureDefs[0].signatureKey == b"serving_default"
    used = {tensor.buffer for tensor in graph.tensors}
    assert used | {0} == set(range(len(model.buffers)))


def with_buffers(count, data):
    model = schema.ModelT()
    model.subgraphs = [schema.SubGraphT()]
    model.buffers = [schema.BufferT() for _ in range(count)]
    for buffer in model.buffers:
        buffer.data = data
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_equal_vectors_are_written_once():
    file = TFLiteFile(with_buffers(20, np.arange(200).astype(np.uint8)))
    assert len(file.pack()) < 1000
    for buffer in file.copy().model.buffers:
        np.testing.assert_array_equal(buffer.data, np.arange(200))


def test_buffers_behind_the_flatbuffer_are_read():
    file = TFLiteFile(with_buffers(2, None))
    file.model.buffers[1].offset, file.model.buffers[1].size = 10_000, 3
    data = file.pack()
    data += bytes(10_000 - len(data)) + b"abc"
    assert bytes(TFLiteFile(data).model.buffers[1].data) == b"abc"


@pytest.mark.parametrize(
    "data",
    [
        np.ones((3, 8, 8, 3)),
        np.ones((8, 8, 3)),
        [np.ones((8, 8, 3)), np.ones((1, 8, 8, 3), np.float32), np.ones((2, 8, 8, 3), np.uint8)],
        (np.ones((8, 8, 3)) for _ in range(2)),
    ],
    ids=["array", "one", "mixed", "generator"],
)
def test_representative_data_may_have_a_batch_or_not(data):
    (samples,) = representative_samples(data, conv_norm()).values()
    assert samples.shape[1:] == (8, 8, 3) and samples.dtype == np.float32


@pytest.mark.slow
def test_ranges_are_the_true_extremes_of_the_data(tmp_path):
    """A moving average, as in the quantizer's own calibration, would clip the one large input."""
    pytest.importorskip("ai_edge_quantizer")
    model, path = conv_norm(), tmp_path / "model.tflite"
    samples = inputs(model, 30) * np.where(np.arange(30) == 3, 20, 1)[:, None, None, None].astype(np.float32)
    export_tflite(model, path, compute="int8", representative_data=samples)
    expected = np.array(model(samples[3:4]))
    assert np.abs(run(path, samples[3:4]) - expected).max() < 0.05 * np.ptp(expected)
