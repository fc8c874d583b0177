import dataclasses
import importlib
import json
import math
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from lab import datasets, deep_compression, models
from lab.deep_compression import Config, run, stages
from patterns import small_data

import scc_tf
from scc_tf.callbacks import RaiseOnNaN
from scc_tf.layers import weight_sharing_layers

CONFIG = Config(
    float_epochs=2,
    rounds=2,
    round_epochs=1,
    last_epochs=2,
    density=0.1,
    batch_size=20,
    clusters=4,
    tune_steps=3,
    last_tune_steps=5,
)
WEIGHTS = {"conv": 36, "dense1": 1280, "head": 200}
TOTAL = sum(WEIGHTS.values())
NETWORKS = (
    1 + 2 + 1 + 1 + 1
)  # float, after each round, the first of these with shared weights, final, float with shared


def shuffled_data(name, data_dir=None):
    """The labels of the test set say nothing."""
    data = small_data(name)
    return data._replace(test=data.test._replace(labels=np.random.default_rng(0).permutation(data.test.labels)))


def small_net(seed=None, dropout=0.0):
    k, he = keras.layers, keras.initializers.HeNormal(seed)
    image = keras.Input((6, 6, 1), name="image")
    x = k.Flatten(name="flatten")(k.Conv2D(4, 3, name="conv", kernel_initializer=he)(image))
    x = k.Dense(20, activation="relu", name="dense1", kernel_initializer=he)(x)
    x = k.Dropout(dropout, seed=seed, name="dropout1")(x) if dropout else x
    return keras.Model(image, k.Dense(10, name="head", kernel_initializer=he)(x), name="small_net")


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", small_data)
        patch.setattr(models, "lenet_300_100", small_net)
        patch.setattr(deep_compression, "QUANTIZED", (2,))
        yield


@pytest.fixture(scope="module")
def scored():
    """How many networks were evaluated on test so far."""
    return []


@pytest.fixture(scope="module")
def done(work_dir, scored, _small):
    evaluate, test = keras.Model.evaluate, small_data().test.images

    def counted(self, images, *arguments, **options):
        if np.array_equal(images, test):
            scored.append(self.name)
        return evaluate(self, images, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "evaluate", counted)
        return run(CONFIG, work_dir, verbose=0)


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", lambda *arguments, **options: pytest.fail("a stage was trained again"))


def without(record, *names):
    """A record without what differs from run to run, however deep."""
    if isinstance(record, dict):
        return {name: without(value, *names) for name, value in record.items() if name not in names}
    return [without(value, *names) for value in record] if isinstance(record, list) else record


def assert_same_weights(model, other):
    for one, same in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


# run -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_record_is_json_with_the_points_of_three_stages(done):
    record, _ = done
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record["config"]) == {field.name for field in dataclasses.fields(Config)} - {"data_dir"}
    assert [point["stages"] for point in record["points"]] == ["pruning", "both"] * 2 + ["sharing"]
    assert [point.get("clusters") for point in record["points"]] == [None, 4, None, 4, 2]
    for part in (record["float"], record["final"], *record["points"]):
        assert 0 <= part["validation_error"] <= 100 and 0 <= part["test_error"] <= 100
        assert part["seconds"] > 0
    assert record["float"]["float32_bytes"] == 4 * (TOTAL + 4 + 20 + 10)
    led_to_it = [record["float"], record["final"], *(p for p in record["points"] if p["stages"] == "pruning")]
    assert record["seconds"] == pytest.approx(sum(part["seconds"] for part in led_to_it))
    assert record["final"]["ratio"] == record["float"]["float32_bytes"] / record["final"]["stored_bytes"]


@pytest.mark.slow
def test_as_many_weights_are_left_as_were_asked_for(done):
    record, final = done
    pruned = [point for point in record["points"] if point["stages"] == "pruning"]
    for point, wanted in zip(pruned, [0.1**0.5, 0.1], strict=True):
        assert 0.9 * wanted < point["density"] <= wanted + 0.5 / TOTAL  # neurons that died take some along
        assert sum(point["left"].values()) == pytest.approx(point["density"] * TOTAL)
    assert record["final"]["density"] == pruned[-1]["density"]
    left = {layer.name: np.count_nonzero(layer.quantized()) for layer in weight_sharing_layers(final)}
    assert left == pruned[-1]["left"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_training")
def test_pruned_weights_are_zero_and_the_others_take_few_values(done, work_dir):
    trainer = stages.Trainer(CONFIG, small_data(), work_dir, verbose=0)
    *_, (pruned, _) = stages.pruned_networks(trainer, stages.float_network(trainer)[0])
    for layer in weight_sharing_layers(done[1]):
        kernel = np.asarray(layer.quantized())
        np.testing.assert_array_equal(kernel != 0, np.asarray(pruned.get_layer(layer.name).kernel) != 0)
        assert 1 < np.unique(kernel[kernel != 0]).size <= CONFIG.clusters


@pytest.mark.slow
def test_the_bytes_are_those_of_the_file_and_it_loads(done, tmp_path):
    record, final = done
    report = scc_tf.save_packed(final, tmp_path / "final.scc")
    unmeasured = {"probe_error": None}  # the record is of files that are not written
    assert record["parts"]["range"] == {**dataclasses.asdict(report), **unmeasured, "table_bytes": 0}
    assert record["parts"]["huffman"]["table_bytes"] > 0
    assert record["final"]["huffman_bytes"] == record["parts"]["huffman"]["stored_bytes"]
    assert record["final"]["stored_bytes"] == (tmp_path / "final.scc").stat().st_size
    images = small_data().test.images
    loaded = scc_tf.load_packed(tmp_path / "final.scc")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), final.predict(images, verbose=0))


@pytest.mark.slow
def test_the_errors_are_those_of_the_networks(done):
    record, final = done
    for name in ("validation", "test"):
        part = getattr(small_data(), name)
        wrong = final.predict(part.images, verbose=0).argmax(axis=1) != part.labels
        assert record["final"][f"{name}_error"] == pytest.approx(100 * wrong.mean(), abs=1e-4)
    assert record["final"]["parameters"] == scc_tf.to_plain(final).count_params()


@pytest.mark.slow
@pytest.mark.usefixtures("done")
def test_every_network_is_scored_on_test_once(scored):
    assert len(scored) == NETWORKS


@pytest.mark.slow
@pytest.mark.usefixtures("no_training")
def test_a_second_run_trains_nothing(done, work_dir, scored):
    record, final = run(CONFIG, work_dir, verbose=0)
    assert record == done[0]
    assert_same_weights(final, done[1])
    assert len(scored) == NETWORKS
    assert {path.name for path in work_dir.rglob("*") if path.is_file()} == {"model.weights.h5", "record.json"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_training")
def test_without_comparison_the_network_is_the_same(done, work_dir):
    record, final = run(CONFIG, work_dir, compare=False, verbose=0)
    assert record["points"] == []
    assert without(record, "points") == without(done[0], "points")
    assert_same_weights(final, done[1])


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_network(done, work_dir, tmp_path, monkeypatch):
    work = Path(shutil.copytree(work_dir, tmp_path / "work"))
    for pattern in ("*-pruned-2-*", "*-shared-final-*"):
        (folder,) = work.glob(pattern)
        shutil.rmtree(folder)
    steps, trained = 120 // 20, []

    def run_until(last):
        def on_train_batch_end(self, batch, logs=None):
            trained.append(int(self.model.optimizer.iterations))
            if len(trained) == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(RaiseOnNaN, "on_train_batch_end", on_train_batch_end)
        return run(CONFIG, work, compare=False, verbose=0)

    with pytest.raises(KeyboardInterrupt):
        run_until(steps + 2)
    trained.clear()
    record, final = run_until(None)
    assert trained == [*range(steps + 1, 2 * steps + 1), *range(1, CONFIG.last_tune_steps + 1)]
    assert_same_weights(final, done[1])
    assert without(record, "seconds", "points") == without(done[0], "seconds", "points")


@pytest.mark.slow
def test_the_labels_of_the_test_set_change_the_test_errors_alone(done, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load", shuffled_data)
    record, final = run(CONFIG, tmp_path, compare=False, verbose=0)
    unseen = ("seconds", "points", "test_error", "pruned_test_error")
    assert without(record, *unseen) == without(done[0], *unseen)
    assert_same_weights(final, done[1])


# stages --------------------------------------------------------------------------------------------------------------


class Untrained:
    """A trainer whose networks keep the weights that they have."""

    def __init__(self, config):
        self.config, self.trained = config, []

    def train(self, model, name, learning_rate, weight_decay, *, epochs):
        self.trained.append((learning_rate, epochs))
        return {"validation_error": 0.0, "test_error": 0.0}


def test_neurons_without_inputs_or_outputs_go_and_nothing_else_changes(monkeypatch):
    config = dataclasses.replace(CONFIG, density=0.3, rounds=1, retrain_factor=0.5)
    model = small_net(0)
    dense1, head = model.get_layer("dense1"), model.get_layer("head")
    dense1.kernel.assign(dense1.kernel * np.where(np.arange(20) == 3, 1e-3, 1))
    dense1.bias.assign(np.linspace(-1, 1, 20))
    head.kernel.assign(head.kernel * np.where(np.arange(20) == 5, 1e-3, 1)[:, None])
    cuts = []

    def watched(masked):
        cuts.append((masked, *remove(masked)))
        return cuts[-1][1:]

    protocol = importlib.import_module("scc_tf.protocols.deep_compression")
    remove = protocol.remove_dead_channels
    monkeypatch.setattr(protocol, "remove_dead_channels", watched)
    trainer, before = Untrained(config), model.get_weights()
    ((pruned, record),) = stages.pruned_networks(trainer, model)
    ((masked, _, report),) = cuts
    assert report.channels["dense1"] == (20, 18)  # no inputs, no outputs
    assert pruned.get_layer("dense1").kernel.shape == (64, 18)
    assert pruned.get_layer("head").kernel.shape == (18, 10)
    images = small_data().test.images
    np.testing.assert_allclose(pruned(images), masked(images), atol=1e-5)
    assert record["left"] == {name: np.count_nonzero(pruned.get_layer(name).kernel) for name in WEIGHTS}
    assert trainer.trained == [(0.5 * config.learning_rate, config.last_epochs)]
    for one, same in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_what_one_round_prunes_does_not_come_back():
    """So many weights go with dead neurons in the first round that the second asks for more than are left."""
    image = keras.Input((4,))
    hidden = keras.layers.Dense(3, "relu", name="dense1")(image)
    model = keras.Model(image, keras.layers.Dense(2, name="head")(hidden))
    model.get_layer("dense1").kernel.assign(np.full((4, 3), 2.0))
    model.get_layer("head").kernel.assign([[1.0, 0.5], [0.4, 0.3], [0.2, 0.1]])
    config = dataclasses.replace(CONFIG, density=0.5, rounds=2)
    left = []
    for pruned, _ in stages.pruned_networks(Untrained(config), model):
        left.append({name: np.asarray(pruned.get_layer(name).masks["kernel"]).tolist() for name in ("dense1", "head")})
    assert left == [{"dense1": [[1]] * 4, "head": [[1, 0]]}] * 2


def test_dropout_is_rescaled_with_the_connections_of_its_layer():
    config = dataclasses.replace(CONFIG, dropout=0.4)
    rates, last = [], 0.4
    for pruned, record in stages.pruned_networks(Untrained(config), small_net(0, 0.4)):
        rates.append(pruned.get_layer("dropout1").rate)
        assert rates[-1] == pytest.approx(0.4 * math.sqrt(record["left"]["dense1"] / WEIGHTS["dense1"]))
        assert 0 < rates[-1] < last
        last = rates[-1]
    assert len(rates) == 2


@pytest.mark.parametrize(("name", "mirrored"), [("cifar10", True), ("mnist", False)])
def test_only_cifar_is_mirrored(monkeypatch, tmp_path, name, mirrored):
    class Seen(Exception):
        pass

    def batches(*arguments, mirror):
        raise Seen(mirror)

    monkeypatch.setattr(stages, "training_batches", batches)
    with pytest.raises(Seen) as seen:
        stages.Trainer(CONFIG, small_data(name), tmp_path).train(None, "float", 0.1, 0.0, epochs=1)
    assert seen.value.args == (mirrored,)
