import dataclasses
import json
import math
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import scc_tf
from scc_tf import datasets, models
from scc_tf.callbacks import RaiseOnNaN
from scc_tf.export.packed import packed_report
from scc_tf.layers import weight_sharing_layers
from scc_tf.pipelines import deep_compression
from scc_tf.pipelines.deep_compression import COLUMNS, PAPER, PRESETS, Config, run, stages
from scc_tf.pipelines.deep_compression.rates import layer_rates

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
NETWORKS = 1 + 2 + 2 + 1 + 1  # float, after each round, these with shared weights, final, the float one with shared


def split(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = np.random.default_rng(99).random((10, 6, 6, 1))[labels] * rng.uniform(0.5, 1, (count, 1, 1, 1))
    return datasets.Split(images.astype(np.float32), labels.astype(np.int64))


def small_data(name="mnist", data_dir=None):
    return datasets.Dataset(name, split(120, 0), split(40, 1), split(40, 2), tuple("0123456789"))


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
    """A small data set and network; no XLA, whose compiler would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", small_data)
        patch.setattr(models, "lenet_300_100", small_net)
        patch.setattr(deep_compression, "QUANTIZED", (2,))
        patch.setattr("keras.src.trainers.trainer.model_supports_jit", lambda model: False)
        yield


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


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
    left = {layer.name: np.count_nonzero(layer.effective()) for layer in weight_sharing_layers(final)}
    assert left == pruned[-1]["left"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_training")
def test_pruned_weights_are_zero_and_the_others_take_few_values(done, work_dir):
    trainer = stages.Trainer(CONFIG, small_data(), work_dir, verbose=0)
    *_, (pruned, _) = stages.pruned_networks(trainer, stages.float_network(trainer)[0])
    for layer in weight_sharing_layers(done[1]):
        kernel = np.asarray(layer.effective())
        np.testing.assert_array_equal(kernel != 0, np.asarray(pruned.get_layer(layer.name).kernel) != 0)
        assert 1 < np.unique(kernel[kernel != 0]).size <= CONFIG.clusters


@pytest.mark.slow
@pytest.mark.parametrize("coder", ["range", "huffman"])
def test_the_bytes_are_those_of_the_file_and_it_loads(done, tmp_path, coder):
    record, final = done
    report = scc_tf.save_packed(final, tmp_path / "final.scc", coder=coder)
    assert record["parts"][coder] == dataclasses.asdict(report)
    stored = record["final"]["stored_bytes" if coder == "range" else "huffman_bytes"]
    assert stored == (tmp_path / "final.scc").stat().st_size
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

    remove = stages.remove_dead_channels
    monkeypatch.setattr(stages, "remove_dead_channels", watched)
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


# Config --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", PRESETS)
def test_presets_fill_in_what_is_not_said(model):
    config = Config(model=model)
    assert {name: getattr(config, name) for name in PRESETS[model]} == PRESETS[model]
    assert None not in dataclasses.asdict(config).values()


def test_what_is_said_wins():
    config = Config(model="lenet_5", density=0.5, dropout=0.0, rounds=1)
    assert (config.density, config.dropout, config.rounds) == (0.5, 0.0, 1)
    assert config.float_epochs == PRESETS["lenet_5"]["float_epochs"]


def test_densities_are_a_geometric_sequence_to_the_last():
    assert Config(density=0.04, rounds=2).densities == pytest.approx([0.2, 0.04])
    assert Config(density=0.3, rounds=7).densities[-1] == 0.3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "vgg16"),
        ("start", "random"),
        ("density", 0.0),
        ("density", 1.5),
        ("density", math.nan),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("retrain_factor", -0.1),
        ("tune_factor", 2.0),
        ("weight_decay", -1.0),
        ("weight_decay", math.inf),
        ("dropout", 1.0),
        ("dropout", math.nan),
        ("float_epochs", 0),
        ("rounds", 0),
        ("round_epochs", 0),
        ("last_epochs", 0),
        ("batch_size", 0),
        ("clusters", 0),
        ("clusters", 65_536),
        ("tune_steps", 0),
        ("last_tune_steps", 0),
        ("shift", -1),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Expected {name} .*Received: {name}="):
        Config(**{name: value})


def test_dropout_is_refused_where_the_network_has_none():
    assert Config(model="lenet_5", dropout=0.5).dropout == 0.5
    with pytest.raises(ValueError, match=r"Expected dropout .*Received: dropout=0\.5, model='resnet20'"):
        Config(model="resnet20", dropout=0.5)


def test_every_setting_has_a_help_text():
    assert all(field.metadata["help"] for field in dataclasses.fields(Config))


# rates ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_layers():
    """Kernels of 3 x 2 and 2 x 30 with 2 and 3 clusters."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            scc_tf.layers.WeightSharingDense(2, clusters=2, name="tiny"),
            scc_tf.layers.WeightSharingDense(30, clusters=3, name="gaps"),
        ]
    )
    model.get_layer("tiny").share([-1.0, 0.5], [[0, 2], [0, 0], [1, 0]])
    indices = np.zeros(60, int)
    indices[[0, 1, 2, 3, 20, 59]] = 1, 2, 3, 3, 3, 1
    model.get_layer("gaps").share([-1.0, 0.5, 1.0], indices.reshape(2, 30))
    return model


def test_rates_of_a_tiny_layer_by_hand(two_layers):
    file = packed_report(two_layers, coder="huffman")
    row = layer_rates(two_layers, {"tiny": 12, "gaps": 60}, file)["tiny"]
    own = file.kernels["tiny"]
    # gaps 1 and 2, entries 2 and 1: two Huffman codes of a bit each, in a byte
    assert row == {
        "clusters": 2,
        "weights": 12,
        "kept": pytest.approx(100 * 2 / 12),
        "weight_bits": 2,  # two clusters and the filler
        "weight_bits_huffman": 4.0,
        "index_bits": 3,
        "index_bits_huffman": 4.0,
        "rate": pytest.approx(100 * (2 * (2 + 3) + 2 * 32) / (12 * 32)),
        "rate_huffman": pytest.approx(100 * (8 + 8 + own["tables"] + own["codebook"]) / (12 * 32)),
    }


def test_fillers_are_stored_entries(two_layers):
    row = layer_rates(two_layers, {"tiny": 12, "gaps": 60}, packed_report(two_layers, coder="huffman"))["gaps"]
    zeros = [0, 0, 0, 0, 16, 38]  # before each entry
    entries = sum(1 + gap // 2 ** row["index_bits"] for gap in zeros)
    assert row["kept"] == 10.0
    assert row["weight_bits"] == 2
    assert row["rate"] == pytest.approx(100 * (entries * (2 + row["index_bits"]) + 3 * 32) / (60 * 32))


def test_rates_sum_to_the_bits_of_the_file(two_layers):
    file = packed_report(two_layers, coder="huffman")
    rates = layer_rates(two_layers, {"tiny": 12, "gaps": 60}, file)
    total = rates.pop("total")
    bits = [row["rate_huffman"] / 100 * 32 * row["weights"] for row in rates.values()]
    assert sum(bits) == pytest.approx(sum(sum(own.values()) for own in file.kernels.values()))
    kernel_bytes = file.code_bytes + file.index_bytes + file.codebook_bytes + file.table_bytes
    assert sum(bits) / 8 == pytest.approx(kernel_bytes, abs=2)  # four numbers, each rounded
    assert total["rate_huffman"] == pytest.approx(100 * sum(bits) / (32 * 72))
    assert total["kept"] == pytest.approx(100 * 8 / 72)
    assert (total["weights"], set(total)) == (72, {"weights", "kept", "rate", "rate_huffman"})


# paper ---------------------------------------------------------------------------------------------------------------

TABLE_2 = """
dense1  8  6 4.4  5 3.7   3.1  2.32
dense2  9  6 4.4  5 4.3   3.8  3.04
head   26  6 4.3  5 3.2  15.7 12.70
"""
TABLE_3 = """
conv1  66  8 7.2  5 1.5  78.5 67.45
conv2  12  8 7.2  5 3.9   6.0  5.28
dense1  8  5 4.5  5 4.5   2.7  2.45
head   19  5 5.2  5 3.7   6.9  6.13
"""


@pytest.mark.parametrize(("name", "table"), [("lenet_300_100", TABLE_2), ("lenet_5", TABLE_3)])
def test_the_rows_are_those_of_the_paper(name, table):
    rows = {line.split()[0]: tuple(map(float, line.split()[1:])) for line in table.strip().splitlines()}
    assert PAPER[name]["layers"] == rows
    assert {len(row) for row in rows.values()} == {len(COLUMNS)}
    kernels = [layer.name for layer in getattr(models, name)().layers if layer.weights] if name == "lenet_5" else rows
    assert list(rows) == list(kernels)


@pytest.mark.parametrize(
    ("name", "errors", "kilobytes", "ratio", "total"),
    [("lenet_300_100", (1.64, 1.58), 27, 40, (8, 3.1, 2.49)), ("lenet_5", (0.80, 0.74), 44, 39, (8, 3.05, 2.55))],
)
def test_the_totals_are_those_of_the_paper(name, errors, kilobytes, ratio, total):
    paper = PAPER[name]
    assert (paper["float_error"], paper["error"]) == errors
    assert (paper["bytes"], paper["ratio"]) == (1000 * kilobytes, ratio)
    assert paper["total"] == dict(zip(("kept", "rate", "rate_huffman"), total, strict=True))


@pytest.mark.parametrize(
    ("name", "layer", "weights", "expected"),
    [
        ("lenet_300_100", "head", 1_000, 15.34),
        ("lenet_5", "conv1", 500, 78.01),
        ("lenet_5", "conv2", 25_000, 5.90),
        ("lenet_5", "head", 5_000, 6.58),
    ],
)
def test_the_rates_of_the_paper_are_entries_and_a_codebook(name, layer, weights, expected):
    row = dict(zip(COLUMNS, PAPER[name]["layers"][layer], strict=True))
    entries = row["kept"] * (row["weight_bits"] + row["index_bits"]) / 32
    rate = entries + 100 * 2 ** row["weight_bits"] * 32 / (32 * weights)
    assert rate == pytest.approx(expected, abs=0.005)
    assert 0 < row["rate"] - rate < 0.05 * row["rate"]  # the rest is fillers
