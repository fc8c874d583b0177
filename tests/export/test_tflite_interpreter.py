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


@pytest.fixture(scope="module")
def one_file(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("file"))[1]


@pytest.mark.slow
def test_every_example_gets_its_own_outputs(tmp_path):
    model, path = exported(tmp_path)
    x = np.random.default_rng(0).normal(size=(5, 8))
    np.testing.assert_allclose(run_tflite(path, x), model(x), atol=1e-5)


@pytest.mark.slow
def test_inputs_of_another_shape_are_refused(one_file):
    with pytest.raises(ValueError, match=r"shape \(8,\). Received: inputs=\(5, 7\)"):
        run_tflite(one_file, np.zeros((5, 7)))
    with pytest.raises(ValueError, match="threads to be a whole number"):
        run_tflite(one_file, np.zeros((5, 8)), threads=0)


@pytest.mark.slow
def test_several_inputs_are_given_in_order_or_by_name(tmp_path):
    model, path = exported(tmp_path, ((8,), (4,)))
    a, b = np.random.default_rng(0).normal(size=(2, 5, 8))
    b = b[:, :4]
    names = [tensor.name for tensor in model.inputs]
    for given in ([a, b], (a, b), dict(zip(names[::-1], [b, a], strict=True))):
        np.testing.assert_allclose(run_tflite(path, given), model([a, b]), atol=1e-5)
    for wrong in (a, [a, b, b], {"a": a, "b": b}, dict(zip(names, [a, b[:3]], strict=True))):
        with pytest.raises(ValueError, match=r"^Expected .* Received: "):
            run_tflite(path, wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "inputs", [np.full((2, 8), np.nan), "x", None, np.array([["a"] * 8])], ids=["nan", "text", "None", "texts"]
)
def test_what_are_no_numbers_is_refused(inputs, one_file):
    with pytest.raises(ValueError, match=r"^Expected inputs"):
        run_tflite(one_file, inputs)


def test_what_is_no_tflite_file_is_refused(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"no")
    with pytest.raises(ValueError):
        run_tflite(tmp_path / "x.tflite", np.zeros((1, 8)))
    with pytest.raises(FileNotFoundError, match="path"):
        run_tflite(tmp_path / "none.tflite", np.zeros((1, 8)))
    with pytest.raises(ValueError, match="path"):
        run_tflite(tmp_path, np.zeros((1, 8)))
