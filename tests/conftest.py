import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import hypothesis
import keras
import pytest
from sklearn.datasets import load_digits

import scc_tf  # noqa: F401

hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _fixed_seeds_and_a_fresh_name_space():
    keras.utils.set_random_seed(0)
    keras.utils.clear_session(free_memory=False)


@pytest.fixture
def digits_network(monkeypatch):
    """What the pages call `trained`, `x_train` and `y_train`: digits, and a network that knows some of them.

    `compress` trains for so few steps here that the examples of the pages take seconds.
    """
    for name, count in (("STEPS", 40), ("LOOKS", 4)):
        monkeypatch.setattr(sys.modules["scc_tf.compression.compress"], name, count)
    x_train, y_train = load_digits(return_X_y=True)
    x_train = (x_train[:600] / 16).astype("float32").reshape(-1, 8, 8, 1)
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu", name="first"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, "softmax", name="head"),
    ]
    trained = keras.Sequential(layers)
    trained.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    trained.fit(x_train, y_train[:600], epochs=3, verbose=0)
    return {"trained": trained, "x_train": x_train, "y_train": y_train[:600]}
