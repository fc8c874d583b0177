import json

import keras
import numpy as np
import pytest

from scc_tf import datasets, models
from scc_tf.pipelines.knapsack_pruning import METHODS, Config, edge_saliency, run

CONFIG = Config(float_epochs=1, epochs=1, batch_size=30, calibration=40)
BITS = CONFIG.code_bits + CONFIG.index_bits


def split(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = np.random.default_rng(99).random((10, 4, 4, 1))[labels] * rng.uniform(0.5, 1, (count, 1, 1, 1))
    return datasets.Split(images.astype(np.float32), labels.astype(np.int64))


def small_net(seed=None):
    initial = keras.initializers.GlorotUniform(seed)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="relu", name="dense1", kernel_initializer=initial),
            keras.layers.Dense(10, name="head", kernel_initializer=initial),
        ]
    )


@pytest.fixture
def small(monkeypatch):
    data = datasets.Dataset("mnist", split(120, 0), split(40, 1), split(40, 2), tuple("0123456789"))
    monkeypatch.setattr(datasets, "load", lambda *arguments: data)
    monkeypatch.setattr(models, "lenet_300_100", small_net)
    monkeypatch.setattr("keras.src.trainers.trainer.model_supports_jit", lambda model: False)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_both_methods_spend_the_budget_and_no_more():
    record = run(CONFIG, [50, 150], verbose=0)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert [(row["budget_bytes"], row["method"]) for row in record["rows"]] == [
        (b, m) for b in (50, 150) for m in METHODS
    ]
    for row in record["rows"]:
        assert row["edges"] == 8 * row["budget_bytes"] // BITS
        sizes = {"dense1": 16 * 12, "head": 12 * 10}
        assert sum(round(row["kept"][name] * size) for name, size in sizes.items()) == row["edges"]
        assert all(
            0 <= row[name] <= 1 for name in ("test_accuracy", "validation_accuracy", "validation_accuracy_before")
        )
    assert record["float"]["edges"] == 16 * 12 + 12 * 10


def test_the_saliency_of_a_linear_net_by_hand():
    """One output per class, no bias: the gradient of the loss is input times (probability - one-hot)."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 2, 7)
    (saliency,) = edge_saliency(model, [model.layers[0].kernel], images, labels, batch_size=1)
    weights = np.asarray(model.layers[0].kernel, np.float64)
    logits = images @ weights
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gradients = images[:, :, None] * (probabilities - np.eye(2)[labels])[:, None]
    np.testing.assert_allclose(saliency, ((gradients * weights) ** 2).sum(0), rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"epochs": 0}, "epochs >= 1"), ({"learning_rate": 2.0}, "learning_rate=2.0"), ({"seed": -1}, "seed=-1")],
)
def test_settings_that_cannot_run(setting, message):
    with pytest.raises(ValueError, match=message):
        Config(**setting)
