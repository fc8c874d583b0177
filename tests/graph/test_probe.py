"""Inputs that are made up for a model are such as it takes."""

import keras
import numpy as np
import pytest
from keras import layers

from scc_tf.graph import probe_inputs


def _adapted(layer, data):
    layer.adapt(np.array(data))
    return layer


def _pair():
    numbers, tokens = keras.Input((3,), name="numbers"), keras.Input((2,), dtype="int32", name="tokens")
    words = layers.Flatten()(layers.Embedding(4, 2)(tokens))
    return keras.Model({"numbers": numbers, "tokens": tokens}, layers.Concatenate()([numbers, words]))


MODELS = {
    "tokens": lambda: keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(2, 3)]),
    "words that are known": lambda: keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            _adapted(layers.StringLookup(num_oov_indices=0), ["red", "blue"]),
            layers.Embedding(2, 3),
        ]
    ),
    "texts": lambda: keras.Sequential(
        [keras.Input((1,), dtype="string"), _adapted(layers.TextVectorization(), ["red blue"]), layers.Embedding(9, 3)]
    ),
    "a dictionary": _pair,
    "images of any size": lambda: keras.Sequential(
        [keras.Input((None, None, 1)), layers.Conv2D(2, 20), layers.GlobalMaxPooling2D()]
    ),
    "a fixed batch": lambda: keras.Sequential([keras.Input((5, 2), batch_size=3), layers.LSTM(2, stateful=True)]),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_answers_what_it_is_asked(make):
    model = make()
    answers = np.asarray(model(probe_inputs(model), training=False))
    assert np.isfinite(answers).all()
    assert len(answers) == (model.inputs[0].shape[0] or 4)


def test_numbers_are_where_the_model_expects_them():
    scaled = keras.Sequential([keras.Input((50,)), layers.Rescaling(1 / 255), layers.Dense(2)])
    normalized = keras.Sequential([keras.Input((1,)), _adapted(layers.Normalization(), [[90.0], [110.0]])])
    assert 60 < np.mean(probe_inputs(scaled)) < 200
    assert 90 < np.mean(probe_inputs(normalized, 50)) < 110
    assert probe_inputs(keras.Sequential([keras.Input((9,), dtype="uint8"), layers.Flatten()])).max() > 100
