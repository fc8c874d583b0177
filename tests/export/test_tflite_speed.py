"""Operators in a faster form compute the same, and are there only where they pay."""

import keras
import numpy as np
import pytest
from tflite_files import inputs, operators, randomize, relative_error

from scc_tf import layers
from scc_tf.export import export_tflite, run_tflite
from scc_tf.export.tflite.flatbuffer import TFLiteFile

K = keras.layers


def kernels(path):
    """Shape of the filter and stride along a row, for every convolution of a file."""
    file = TFLiteFile(path.read_bytes())
    convolutions = [operator for operator in file.graph.operators if file.op(operator) == "CONV_2D"]
    return [(file.array(o.inputs[1]).shape, o.builtinOptions.strideW) for o in convolutions]


def names(path):
    return [name for name, _ in operators(path)]


CONVOLUTIONS = [  # filters, size, options, and how many pixels 16 lanes take at once
    (8, 3, {"padding": "same"}, 2),
    (5, 3, {"padding": "same", "activation": "relu"}, 3),
    (4, (1, 4), {"padding": "same"}, 4),  # an even width pads more on the right
    (2, 3, {"padding": "valid"}, 5),  # ten columns: 8 would fit, 5 divides
    (2, 3, {"padding": "same", "strides": (2, 1)}, 6),
    (8, 3, {"padding": "same", "strides": 2}, 1),
    (7, 3, {"padding": "same", "dilation_rate": (2, 1)}, 2),
    (6, 3, {"padding": "same", "dilation_rate": (1, 2)}, 1),
    (8, (3, 1), {}, 1),  # nothing is shared between two pixels
    (9, 3, {}, 1),
    (3, 3, {"groups": 3}, 1),  # they would meet other inputs
]


@pytest.mark.slow
def test_lanes_are_filled_with_pixels(tmp_path):
    x, path = keras.Input((7, 12, 3)), tmp_path / "model.tflite"
    model = keras.Model(x, [K.Conv2D(filters, size, **options)(x) for filters, size, options, _ in CONVOLUTIONS])
    export_tflite(randomize(model, seed=1), path, storage="float32", lanes=16)
    samples, expected = inputs(model), []
    for output, wanted in zip(run_tflite(path, samples), model(samples), strict=True):
        np.testing.assert_allclose(output, wanted, atol=1e-6 * np.ptp(wanted))
    for filters, size, options, pixels in CONVOLUTIONS:
        rows, columns = (size, size) if isinstance(size, int) else size
        expected.append((pixels * filters, rows, columns + pixels - 1, 3 // options.get("groups", 1)))
    assert sorted(shape for shape, _ in kernels(path)) == sorted(expected)
    assert names(path).count("RESHAPE") == sum(pixels > 1 for *_, pixels in CONVOLUTIONS)


@pytest.mark.slow
def test_a_chain_of_convolutions_with_normalization(tmp_path):
    x = image = keras.Input((8, 8, 3))
    for number, filters in enumerate((4, 16, 3)):
        x = K.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = K.ReLU()(K.BatchNormalization(name=f"norm{number}")(x))
    model, path = randomize(keras.Model(image, K.Dense(2)(K.Flatten()(x)))), tmp_path / "model.tflite"
    export_tflite(model, path, storage="float32", lanes=16)
    assert relative_error(path, model) < 1e-5
    assert [(shape[0], stride) for shape, stride in kernels(path)] == [(16, 4), (16, 1), (12, 4)]
    assert names(path).count("RESHAPE") == 2 + 1  # and the Flatten


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer", [K.Conv1D(4, 3), K.Conv1D(4, 3, padding="causal"), K.TimeDistributed(K.Conv1D(4, 3))], ids=lambda x: x.name
)
def test_other_layers_that_become_convolutions(layer, tmp_path):
    shape = (3, 12, 2) if isinstance(layer, K.TimeDistributed) else (12, 2)
    model, path = keras.Sequential([keras.Input(shape), layer]), tmp_path / "model.tflite"
    export_tflite(model, path, storage="float32", lanes=16)
    assert relative_error(path, model) < 1e-6


def skipping(pool):
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, padding="same", name="conv")(x)
    return randomize(keras.Model(image, K.Add()([pool(x), layers.Conv2D(5, 1, strides=2, name="other")(x)])))


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["float", "dynamic"])
@pytest.mark.parametrize("kind", [K.AveragePooling2D, K.MaxPooling2D])
def test_pooling_over_one_pixel_becomes_a_convolution(kind, compute, tmp_path):
    model, path = skipping(kind(1, strides=2)), tmp_path / "model.tflite"
    report = export_tflite(model, path, compute=compute)
    assert report.fallbacks == ()
    assert relative_error(path, model) < (1e-5 if compute == "float" else 3e-2)
    assert "DEPTHWISE_CONV_2D" in names(path) and "_POOL_2D" not in " ".join(names(path))


@pytest.mark.slow
def test_what_is_fused_into_the_pooling_stays(tmp_path):
    model, path = keras.Sequential([keras.Input((8, 8, 3)), K.AveragePooling2D(1, strides=2), K.ReLU()]), tmp_path / "m"
    export_tflite(model, path, storage="float32")
    assert names(path) == ["DEPTHWISE_CONV_2D"] and relative_error(path, model) == 0


@pytest.mark.slow
def test_other_pooling_stays_and_so_does_any_with_integers(tmp_path):
    path = tmp_path / "model.tflite"
    model = skipping(K.AveragePooling2D(2))
    export_tflite(model, path)
    assert "AVERAGE_POOL_2D" in names(path)
    model = skipping(K.AveragePooling2D(1, strides=2))
    export_tflite(model, path, compute="int8", representative_data=inputs(model))
    assert "AVERAGE_POOL_2D" in names(path) and "DEPTHWISE_CONV_2D" not in names(path)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{"lanes": 16}, *({"lanes": n, "storage": "float32"} for n in (0, 16.0))])
def test_lanes_that_cannot_be(arguments, tmp_path):
    with pytest.raises(ValueError, match=r"^Expected lanes .*Received: lanes="):
        export_tflite(skipping(K.AveragePooling2D(2)), tmp_path / "model.tflite", **arguments)
    assert not list(tmp_path.iterdir())
