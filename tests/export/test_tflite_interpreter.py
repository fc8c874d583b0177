import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.export import run_tflite


def exported(tmp_path, inputs=((8,),), storage="int8"):
    entries = [keras.Input(shape) for shape in inputs]
    joined = entries[0] if len(entries) == 1 else keras.layers.Concatenate()(entries)
    model = scc_tf.self_compress(
        keras.Model(entries if len(entries) > 1 else entries[0], keras.layers.Dense(3, name="head")(joined))
    )
    scc_tf.export_tflite(model, tmp_path / "model.tflite", storage=storage)
    return model, tmp_path / "model.tflite"


@pytest.mark.slow
def test_every_example_gets_its_own_outputs(tmp_path):
    model, path = exported(tmp_path)
    x = np.random.default_rng(0).normal(size=(5, 8))
    np.testing.assert_allclose(run_tflite(path, x), model(x), atol=1e-5)


@pytest.mark.slow
def test_inputs_of_another_shape_are_refused(tmp_path):
    _, path = exported(tmp_path)
    with pytest.raises(ValueError, match=r"shape \(8,\). Received: inputs=\(5, 7\)"):
        run_tflite(path, np.zeros((5, 7)))


@pytest.mark.slow
def test_files_with_several_inputs_are_refused(tmp_path):
    _, path = exported(tmp_path, ((8,), (4,)))
    with pytest.raises(ValueError, match="Received: 2 inputs, 1 outputs"):
        run_tflite(path, np.zeros((5, 8)))


def test_what_is_no_tflite_file_is_refused(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"no")
    with pytest.raises(ValueError):
        run_tflite(tmp_path / "x.tflite", np.zeros((1, 8)))
