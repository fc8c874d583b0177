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


def test_saliency_is_the_share_of_a_neurons_input_energy():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, activation="relu"), keras.layers.Dense(4, use_bias=False)]
    )
    images = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    first, second = edge_saliency(model, model.layers, images)
    hidden = np.asarray(model.layers[0](images), np.float64)
    for saliency, x, layer in ((first, images, model.layers[0]), (second, hidden, model.layers[1])):
        kernel = np.asarray(layer.kernel, np.float64)
        for unit in range(kernel.shape[1]):
            given = [np.mean((x[:, i] * kernel[i, unit]) ** 2) for i in range(len(kernel))]
            np.testing.assert_allclose(saliency[:, unit], np.array(given) / sum(given), rtol=1e-4)


def test_a_neuron_that_nothing_reaches_has_no_saliency():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    (saliency,) = edge_saliency(model, model.layers, np.zeros((5, 3), np.float32))
    assert saliency.tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"epochs": 0}, "epochs >= 1"), ({"learning_rate": 2.0}, "learning_rate=2.0"), ({"seed": -1}, "seed=-1")],
)
def test_settings_that_cannot_run(setting, message):
    with pytest.raises(ValueError, match=message):
        Config(**setting)
