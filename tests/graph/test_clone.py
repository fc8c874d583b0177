import keras
import numpy as np
import pytest
from keras import layers

from scc_tf.graph import check_functional, copy_model, walk


def assert_same(model, clone, *shape):
    inputs = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    np.testing.assert_array_equal(clone(inputs), model(inputs))


class OwnCall(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask) + 1


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def two_layers(kind, name=None):
    inputs = keras.Input((4,))
    return kind(inputs, layers.Dense(4)(layers.Dense(4)(inputs)), name=name)


def test_a_lambda_keeps_its_surroundings():
    factor = np.float32(3)
    scale = layers.Lambda(lambda x, power: factor * x**power, arguments={"power": 2}, name="scale", dtype="float64")
    clone = copy_model(keras.Sequential([keras.Input((4,)), scale]))
    assert_same(keras.Sequential([keras.Input((4,)), scale]), clone, 4)
    copy = clone.get_layer("scale")
    assert copy is not scale
    assert copy.compute_dtype == "float64"


def test_an_adapted_normalization_keeps_its_statistics():
    normalize = layers.Normalization()
    normalize.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)).astype("float32"))
    inner = keras.Sequential([keras.Input((4,)), normalize], name="inner")
    assert_same(inner, copy_model(keras.Sequential([keras.Input((4,)), inner, layers.Identity()])), 4)
    boxed = layers.TimeDistributed(normalize)
    model = keras.Sequential([keras.Input((2, 4)), boxed])
    assert_same(model, copy_model(model), 2, 4)


def test_a_nested_model_keeps_the_sizes_that_it_leaves_open():
    inner_input = keras.Input((None, None, 3))
    inner = keras.Model(inner_input, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inner_input)), name="inner")
    one, two = keras.Input((8, 8, 3)), keras.Input((5, 6, 3))
    clone = copy_model(keras.Model([one, two], layers.Add()([inner(one), inner(two)])))
    assert clone.get_layer("inner").input_shape == (None, None, None, 3)
    assert_same(inner, clone.get_layer("inner"), 9, 7, 3)


def test_only_a_model_without_a_call_of_its_own_is_its_graph():
    check_functional(two_layers(keras.Model))
    check_functional(two_layers(OwnStep))
    with pytest.raises(ValueError, match="graph of a subclassed model is not known"):
        check_functional(two_layers(OwnCall))


@pytest.mark.parametrize(("kind", "seen"), [(OwnStep, ["Dense"] * 3), (OwnCall, ["OwnCall", "Dense"])])
def test_a_nested_model_with_a_call_of_its_own_is_a_layer(kind, seen):
    inputs = keras.Input((4,))
    nested = two_layers(kind, name="nested")
    model = keras.Model(inputs, layers.Dense(2)(nested(inputs)))
    kinds = []
    walk(model, [None], lambda layer, tensors, values, outputs: kinds.append(type(layer).__name__) or [None])
    assert kinds == seen
    clone = copy_model(model)
    assert_same(model, clone, 4)
    assert isinstance(clone.get_layer("nested"), OwnCall if kind is OwnCall else keras.Model)
