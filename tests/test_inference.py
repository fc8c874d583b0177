import keras
import numpy as np
import pytest

from scc_tf import inference
from scc_tf.inference import batch_for, batches, check_inputs, check_weights, outputs

L = keras.layers
RNG = np.random.default_rng(0)


def dense(batch=None):
    return keras.Sequential([keras.Input(batch_shape=(batch, 3)), L.Dense(4)])


@pytest.mark.parametrize("count", [1, 4, 7])
def test_answers_are_those_of_the_model(count):
    model, x = dense(), RNG.normal(size=(count, 3))
    np.testing.assert_allclose(outputs(model, x, batch_size=3), model(x), rtol=1e-5, atol=1e-6)


def test_a_batch_that_the_model_fixes_is_filled_up():
    model, x = dense(batch=4), RNG.normal(size=(6, 3)).astype("float32")
    assert batch_for(model) == 4
    np.testing.assert_allclose(
        outputs(model, x), np.concatenate([model(x[:4]), model(x[2:])[2:]]), rtol=1e-5, atol=1e-6
    )


def test_structures_of_inputs_and_outputs_are_kept():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b", dtype="int32")
    model = keras.Model({"a": a, "b": b}, {"sum": L.Add()([a, L.Embedding(3, 1)(b)[..., 0]]), "same": a})
    x = {"a": RNG.normal(size=(5, 2)), "b": RNG.integers(0, 3, (5, 2))}
    answers = outputs(model, x, batch_size=2)
    expected = model(x)
    assert set(answers) == {"sum", "same"}
    for name, values in answers.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)


def test_training_changes_the_answers():
    model, x = dense(), np.ones((2, 3))
    before = outputs(model, x)
    model.layers[0].bias.assign_add(np.ones(4))
    np.testing.assert_allclose(outputs(model, x), before + 1, rtol=1e-5)


def test_large_activations_make_small_batches():
    images = keras.Sequential([keras.Input((224, 224, 3)), L.Conv2D(64, 1)])
    assert 1 <= batch_for(images) < 16 < batch_for(dense())
    assert batch_for(images, batch_size=32) == 32


def test_batches_cover_all_examples_in_order():
    assert [batch.tolist() for batch in batches(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]


def test_open_sides_are_as_long_as_the_inputs():
    fully = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(64, 1)])
    small, large = (np.zeros((1, side, side, 3)) for side in (8, 224))
    assert batch_for(fully, arrays=[large]) < 16 < batch_for(fully, arrays=[small])


def test_what_is_compiled_follows_the_layers(monkeypatch):
    """An activation that is exchanged and a normalization that is adapted are constants of a compiled pass."""
    monkeypatch.setattr(inference, "FEW_BYTES", 0)
    norm, head = L.Normalization(mean=0.0, variance=1.0), L.Dense(4)
    adapted = L.Normalization()
    x = RNG.normal(3, size=(5, 3)).astype("float32")
    adapted.adapt(x)
    model = keras.Sequential([keras.Input((3,)), adapted, norm, head])
    for change in (lambda: None, lambda: adapted.adapt(2 * x), lambda: setattr(head, "activation", keras.ops.exp)):
        change()
        np.testing.assert_allclose(outputs(model, x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"a": np.ones((5, 2))}, "for each of the inputs.*'b'"),
        ([np.ones((5, 2))], "one array for each of the 2 inputs"),
        (np.ones((5, 2)), "one array for each of the 2 inputs"),
        ({"a": np.ones((5, 2)), "b": np.ones((4, 2))}, "equally many examples.*5, 4"),
        ({"a": np.ones((5, 2)), "b": np.full((5, 2), np.inf)}, "Expected x to be finite"),
        ({"a": np.ones((5, 2)), "b": np.ones((5, 3))}, r"Expected x of shape \(None, 2\)"),
    ],
)
def test_inputs_that_a_model_cannot_take_are_refused_by_name(inputs, message):
    ends = [keras.Input((2,), name=name) for name in "ab"]
    with pytest.raises(ValueError, match=message) as caught:
        check_inputs("x", inputs, keras.Model(ends, L.Add()(ends)))
    assert "Received: x" in str(caught.value) and "\n" not in str(caught.value)


def test_a_last_axis_of_one_may_be_missing_or_too_many():
    model = keras.Sequential([keras.Input((4, 1)), L.Flatten()])
    assert [check_inputs("x", np.ones(shape), model)[0].shape for shape in ((5, 4), (5, 4, 1), (5, 4, 1, 1))] == (
        3 * [(5, 4, 1)]
    )


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match=r"functional or Sequential model\. Received: model="):
        outputs(Own(), np.ones((2, 3)))


def test_weights_that_are_not_finite_are_named():
    model = dense()
    check_weights(model)
    model.layers[0].bias.assign([0, np.nan, np.inf, 0])
    with pytest.raises(ValueError, match="bias with 2 values"):
        check_weights(model)
