import dataclasses
import json

import keras
import numpy as np
import pytest
from lab import datasets, models
from lab.knapsack_pruning import METHODS, SALIENCIES, Config, edge_saliency, run
from patterns import small_data

CONFIG = Config(
    float_epochs=1, rounds=2, round_epochs=1, last_epochs=1, tune_steps=2, batch_size=30, clusters=4, calibration=40
)


def small_net(seed=None):
    initial = keras.initializers.GlorotUniform(seed)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1), name="image"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(60, activation="relu", name="dense1", kernel_initializer=initial),
            keras.layers.Dense(10, name="head", kernel_initializer=initial),
        ],
        name="small",  # a file holds the names
    )


@pytest.fixture
def small(monkeypatch):
    data = small_data(side=4)
    monkeypatch.setattr(datasets, "load", lambda *arguments: data)
    monkeypatch.setattr(models, "lenet_300_100", small_net)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_files_fill_the_budget_and_no_more(tmp_path, monkeypatch):
    methods = METHODS[::2]
    monkeypatch.setattr("lab.knapsack_pruning.METHODS", methods)
    record = run(CONFIG, [170], tmp_path, verbose=0)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert [(row["budget_bytes"], row["method"]) for row in record["rows"]] == [(170, method) for method in methods]
    for row in record["rows"]:
        assert 0.9 * row["budget_bytes"] < row["stored_bytes"] <= row["budget_bytes"]  # a neuron is 2 % here
        assert row["edges"] == sum(row["kept"].values()) > 0
        assert 0 <= row["validation_error"] <= 100
        assert 0 <= row["test_error"] <= 100
        if row["method"] == "knapsack":
            assert 0 <= row["gap"] < 0.05
        else:
            assert row["gap"] is None
    assert record["float"]["edges"] == 16 * 60 + 60 * 10


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_budget_below_any_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Expected a budget that a network fits into\. Received: 20 B for"):
        run(dataclasses.replace(CONFIG, rounds=1), [20], tmp_path, verbose=0)


def test_saliencies_are_what_the_table_says():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, activation="relu"), keras.layers.Dense(4, use_bias=False)]
    )
    split = datasets.Split(np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32), np.arange(7) % 4)
    found = {kind: edge_saliency(model, model.layers, split, kind) for kind in SALIENCIES}
    hidden = np.asarray(model.layers[0](split.images), np.float64)
    for number, x in enumerate((split.images, hidden)):
        kernel = np.asarray(model.layers[number].kernel, np.float64)
        np.testing.assert_allclose(found["square"][number], kernel**2, rtol=1e-6)
        energy = np.mean((x[:, :, None] * kernel) ** 2, axis=0)
        np.testing.assert_allclose(found["energy"][number], energy, rtol=1e-4)
        np.testing.assert_allclose(found["share"][number], energy / energy.sum(axis=0), rtol=1e-4)
    logits = hidden @ kernel  # of the head
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = hidden.T @ (chances - np.eye(4)[split.labels]) / 7
    np.testing.assert_allclose(found["gradient"][1], (gradient * kernel) ** 2, rtol=1e-3, atol=1e-9)


def test_a_neuron_that_nothing_reaches_has_no_saliency():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    split = datasets.Split(np.zeros((5, 3), np.float32), np.zeros(5, np.int64))
    (saliency,) = edge_saliency(model, model.layers, split, "share")
    assert saliency.tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"last_epochs": 0}, "last_epochs >= 1"),
        ({"learning_rate": 2.0}, "learning_rate=2.0"),
        ({"tune_factor": 0.0}, "tune_factor=0.0"),
        ({"saliency": "random"}, "saliency='random'"),
        ({"clusters": 0}, "clusters=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_cannot_run(setting, message):
    with pytest.raises(ValueError, match=message):
        Config(**setting)
