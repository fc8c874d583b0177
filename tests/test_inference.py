import keras
import numpy as np
import pytest

from scc_tf.inference import batch_for, batches, outputs

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
