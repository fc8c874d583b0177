import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from lab import datasets, models
from lab.lottery import PROTOCOLS, Config, run, tasks, ticket
from lab.lottery.early_stopping import Stop
from lab.lottery.full_batch import FullBatch
from lab.lottery.protocols import Lottery
from lab.lottery.training import Trainer
from lab.stage import Stage
from patterns import small_data, split

from scc_tf import metrics
from scc_tf.protocols.lottery import round_ratios

CONFIG = Config(epochs=30, patience=5, ratios="0,0.9", rounds=2, runs=2, learning_rate=0.05, rewind_steps=2)


@pytest.fixture(scope="module", autouse=True)
def _no_xla():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FullBatch, "jit_compile", False)
        yield


@pytest.fixture(scope="module")
def done(work_dir, _no_xla):
    return run(CONFIG, work_dir, verbose=0)


def row_of(record, protocol, ratio, seed=0):
    (row,) = (r for r in record["rows"] if (r["protocol"], r["ratio"], r["seed"]) == (protocol, ratio, seed))
    return row


@pytest.mark.slow
def test_the_record_is_json_with_a_row_for_every_seed_protocol_and_ratio(done):
    assert json.loads(json.dumps(done, allow_nan=False)) == done
    assert set(done["config"]) == {field.name for field in dataclasses.fields(Config)} - {"data_dir"}
    wanted = [(seed, *point) for seed in (0, 1) for point in (("dense", 0.0), *((name, 0.9) for name in PROTOCOLS))]
    assert [(row["seed"], row["protocol"], row["ratio"]) for row in done["rows"]] == wanted
    for row in done["rows"]:
        neurons = {0.0: 30, 0.9: 3}[row["ratio"]]
        assert row["channels"] == {"dense1": neurons, "head": 2}
        assert row["parameters"] == 5 * neurons + 2
        assert row["operations"] == 4 * neurons
        assert row["sparsity"] == 1 - row["parameters"] / 152
        rewound = 2 * (row["protocol"] == "iterative")
        assert 1 <= row["epochs"] - rewound <= row["epochs_run"] <= 30
        assert row["capped"] == (row["epochs_run"] == 30)
        assert 0 <= row["test_accuracy"] <= 1 and 0 <= row["ece_15_scaled"] <= 1 and 0 <= row["uce"] <= 1
        assert "ood" not in row
    dense, ticket = row_of(done, "dense", 0.0), row_of(done, "winning_ticket", 0.9)
    assert ticket["epochs_in_all"] == dense["epochs_run"] + ticket["epochs_run"]
    assert row_of(done, "iterative", 0.9)["epochs_in_all"] > ticket["epochs_in_all"]


@pytest.mark.slow
def test_a_rerun_trains_and_measures_nothing(done, work_dir, monkeypatch):
    monkeypatch.setattr(FullBatch, "fit", lambda *arguments: pytest.fail("trained again"))
    monkeypatch.setattr("lab.lottery.training.measure", lambda *arguments: pytest.fail("measured again"))
    assert run(CONFIG, work_dir, verbose=0) == done


@pytest.mark.slow
def test_the_time_is_that_of_every_training_once(done):
    dense = sum(row["seconds"] for row in done["rows"] if row["protocol"] == "dense")
    led_to = sum(row["seconds"] for row in done["rows"])  # counts the dense one in every row
    assert dense < done["seconds"] == pytest.approx(led_to - dense * len(PROTOCOLS))


@pytest.mark.parametrize(
    ("protocol", "ratio", "message"),
    [("wining_ticket", 0.5, "protocols='wining_ticket'"), ("one_shot", 1.0, r"ratios='1\.0'")],
)
def test_a_ticket_that_there_is_not_is_refused_before_anything_is_trained(protocol, ratio, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ticket(CONFIG, protocol, ratio, tmp_path, verbose=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_ticket_is_the_network_of_its_row(done, work_dir, monkeypatch):
    monkeypatch.setattr(FullBatch, "fit", lambda *arguments: pytest.fail("trained again"))
    dense, network, data, ood_images = ticket(CONFIG, "winning_ticket", 0.9, work_dir, verbose=0)
    assert ood_images is None
    for model, (protocol, ratio) in ((dense, ("dense", 0.0)), (network, ("winning_ticket", 0.9))):
        answers = model.predict(data.test.images, verbose=0).argmax(axis=1)
        assert row_of(done, protocol, ratio)["test_accuracy"] == pytest.approx(np.mean(answers == data.test.labels))


@pytest.mark.slow
def test_other_settings_share_the_stages_that_do_not_depend_on_them(done, work_dir, tmp_path, monkeypatch):
    shutil.copytree(work_dir, tmp_path / "work")
    trained, train = [], Trainer.train

    def counted(self, network, name, seed, steps=None):
        trained.append(Stage(self.work_dir / name, "backup").is_finished)
        return train(self, network, name, seed, steps)

    monkeypatch.setattr(Trainer, "train", counted)
    config = dataclasses.replace(CONFIG, rewind_steps=3, runs=1, ratios="0.9", protocols="one_shot,iterative")
    record = run(config, tmp_path / "work", verbose=0)
    assert trained == [True, True, False, False, False]  # the dense one, one-shot; the early step and two rounds
    assert row_of(record, "one_shot", 0.9) == row_of(done, "one_shot", 0.9)
    assert row_of(record, "iterative", 0.9) != row_of(done, "iterative", 0.9)


# what is evaluated is what was pruned --------------------------------------------------------------------------------


def logits(weights, points):
    """Of a network with one hidden layer, in NumPy."""
    kernel, bias, head, head_bias = (np.asarray(w, np.float64) for w in weights)
    return np.maximum(points @ kernel + bias, 0) @ head + head_bias


def strongest(weights, among, count):
    """The ``count`` neurons with the largest L1 norm, of those numbered ``among``."""
    norms = np.abs(weights[0]).sum(axis=0)[among]
    return np.sort(np.asarray(among)[np.argsort(-norms)[:count]])


def part(weights, neurons):
    kernel, bias, head, head_bias = weights
    return kernel[:, neurons], bias[neurons], head[neurons], head_bias


@pytest.fixture
def no_retraining(monkeypatch):
    """Every training of a whole network ends at the same weights, and pruned ones change nothing; returns the weights."""
    config = dataclasses.replace(CONFIG, epochs=300, patience=300)
    network = models.moons_mlp(seed=5)
    FullBatch(config, tasks.two_moons()).fit(network)
    trained = network.get_weights()

    def fit(self, network, epochs=None):
        if network.count_params() == 152:
            network.set_weights(trained)
        return Stop(1, 1, 0.5)

    monkeypatch.setattr(FullBatch, "fit", fit)
    return trained


@pytest.mark.slow
def test_every_row_is_of_the_pruned_network_that_its_protocol_says(no_retraining, tmp_path):
    record = run(dataclasses.replace(CONFIG, runs=1, ratios="0.9", rewind_steps=0), tmp_path, verbose=0)
    test, everything = tasks.two_moons().test, np.arange(30)
    trained, initial = no_retraining, models.moons_mlp(seed=0).get_weights()
    other = models.moons_mlp(seed=1_000_000).get_weights()
    largest = strongest(trained, everything, 3)
    first_round = strongest(trained, everything, 10)  # 1 - sqrt(0.1) of 30 is 20.5, of which 20 go
    expected = {
        "dense": trained,
        "one_shot": part(trained, largest),
        "winning_ticket": part(initial, largest),
        "random_reinit": part(other, largest),
        "iterative": part(initial, strongest(initial, first_round, 3)),
        "random_pruning": part(trained, np.sort(np.argsort(-np.random.default_rng([0, 900_000]).permutation(30))[:3])),
    }
    for row in record["rows"]:
        answers = logits(expected[row["protocol"]], test.images)
        likelihood = metrics.negative_log_likelihood(metrics.softmax(answers), test.labels)
        assert row["nll"] == pytest.approx(likelihood, rel=1e-4), row["protocol"]
        assert row["test_accuracy"] == pytest.approx(np.mean(answers.argmax(axis=1) == test.labels))
    dense = row_of(record, "dense", 0.0)["test_accuracy"]
    for protocol in PROTOCOLS:  # three neurons that nobody trained: the dense network would be far better
        assert row_of(record, protocol, 0.9)["test_accuracy"] < dense - 0.03, protocol
    assert len({row["nll"] for row in record["rows"]}) == 6


@pytest.mark.slow
def test_single_weights_start_from_where_their_protocol_says(no_retraining, tmp_path):
    config = dataclasses.replace(CONFIG, structure="unstructured", runs=1, ratios="0.5", rewind_steps=0, rounds=1)
    test, trained = tasks.two_moons().test, no_retraining
    kernels = trained[::2]
    median = np.median(np.abs(np.concatenate([kernel.ravel() for kernel in kernels])))
    initial, other = (models.moons_mlp(seed=seed).get_weights() for seed in (0, 1_000_000))
    starts = {"one_shot": trained, "winning_ticket": initial, "random_reinit": other, "iterative": initial}
    for row in run(config, tmp_path, verbose=0)["rows"]:
        if start := starts.get(row["protocol"]):
            weights = list(start)
            weights[::2] = [new * (np.abs(old) > median) for new, old in zip(start[::2], kernels, strict=True)]
            likelihood = metrics.negative_log_likelihood(metrics.softmax(logits(weights, test.images)), test.labels)
            assert row["nll"] == pytest.approx(likelihood, rel=1e-4), row["protocol"]


@pytest.mark.slow
def test_a_rewind_goes_to_an_early_step_of_the_dense_training(tmp_path):
    config = dataclasses.replace(CONFIG, runs=1, epochs=40, patience=40, rewind_steps=7)
    task = tasks.load(config)
    trainer = Trainer(config, task.data, None, tmp_path, 0)
    expected = models.moons_mlp(seed=0)
    FullBatch(config, tasks.two_moons()).fit(expected, epochs=7)
    for ours, theirs in zip(Lottery(trainer, 0, task)._early, expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_there_is_nothing_to_rewind_to_after_the_best_step(tmp_path):
    config = dataclasses.replace(CONFIG, runs=1, rewind_steps=31, protocols="iterative")
    with pytest.raises(ValueError, match=r"rewind_steps to be at most .* where the dense network of seed 0 is best"):
        run(config, tmp_path, verbose=0)


@pytest.mark.slow
def test_what_was_pruned_from_another_dense_network_is_trained_again(done, work_dir, tmp_path):
    shutil.copytree(work_dir, tmp_path / "work")
    config = dataclasses.replace(CONFIG, runs=1, protocols="one_shot")
    (dense,) = (tmp_path / "work").glob("lottery-moons_mlp-dense-seed0-*")
    other = models.moons_mlp(seed=8)
    Stage(dense, "backup").save(other, Stage(dense, "backup").record)
    pruned = run(config, tmp_path / "work", verbose=0)["rows"][1]
    assert pruned["nll"] != row_of(done, "one_shot", 0.9)["nll"]


def test_rounds_prune_the_same_share_of_what_is_left():
    ratios = round_ratios(0.8, 5)
    left = 1 - np.array([0.0, *ratios])
    np.testing.assert_allclose(left[1:] / left[:-1], 0.2 ** (1 / 5))
    assert ratios[-1] == 0.8
    assert round_ratios(0.6, 1) == [0.6]


@pytest.mark.slow
def test_a_ratio_below_one_neuron_prunes_nothing_and_trains_nothing_more(tmp_path):
    config = dataclasses.replace(CONFIG, runs=1, ratios="0.03", protocols="iterative", epochs=2)
    dense, iterative = run(config, tmp_path, verbose=0)["rows"]
    named = {"protocol": "dense", "ratio": 0.0}
    assert {**iterative, **named} == dense


@pytest.mark.slow
def test_single_weights(tmp_path):
    config = dataclasses.replace(
        CONFIG, structure="unstructured", runs=1, ratios="0.5", epochs=3, protocols="iterative"
    )
    record = run(config, tmp_path, verbose=0)
    for row in record["rows"][1:]:
        assert row["parameters"] == 60 + 32
        assert row["operations"] == 60
        assert row["channels"] == {"dense1": 30, "head": 2}


# images --------------------------------------------------------------------------------------------------------------


def small_cnn(seed=None):
    k, he = keras.layers, [keras.initializers.HeNormal(seed + n) for n in range(3)]
    image = keras.Input((6, 6, 1), name="image")
    x = k.Conv2D(4, 3, activation="relu", name="conv1", kernel_initializer=he[0])(image)
    x = k.Dense(10, activation="relu", name="dense1", kernel_initializer=he[1])(k.Flatten(name="flatten")(x))
    return keras.Model(image, k.Dense(10, name="head", kernel_initializer=he[2])(x))


@pytest.mark.slow
def test_filters_go_in_mini_batches_and_ood_images_are_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, data_dir: small_data("cifar10"))
    monkeypatch.setattr(datasets, "load_split", lambda name, part, data_dir: split(20, 7))
    monkeypatch.setattr(models, "cifar_cnn", small_cnn)
    config = Config(
        model="cifar_cnn", epochs=2, patience=1, batch_size=40, ratios="0.5", rounds=1, rewind_steps=1,
        protocols="winning_ticket,iterative",
    )  # fmt: skip
    record = run(config, tmp_path, verbose=0)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert [row["channels"] for row in record["rows"]] == [
        {"conv1": 4, "dense1": 10, "head": 10},
        *[{"conv1": 2, "dense1": 5, "head": 10}] * 2,
    ]
    for row in record["rows"]:
        assert set(row["ood"]) == {"probability", "entropy", "energy"}
        assert 0 <= row["ood"]["energy"]["auroc"] <= 1
        assert 0.1 <= row["confidence_ood"] <= 1
    images = tasks.load(config).data.train.images
    assert -1 <= images.min() < 0 < images.max() <= 1


# a network of one's own ----------------------------------------------------------------------------------------------


# settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"model": "vgg"}, "model='vgg'"),
        ({"structure": "blocks"}, "structure='blocks'"),
        ({"protocols": "one_shot,magic"}, "Expected different protocols"),
        ({"protocols": "one_shot, one_shot"}, "Expected different protocols"),
        ({"shift": 2}, "shift=2"),
        ({"ood": "cifar100"}, "ood='cifar100'"),
        ({"ratios": "0.5,1"}, "ratios='0.5,1'"),
        ({"ratios": "half"}, "ratios='half'"),
        ({"ratios": "nan"}, "ratios='nan'"),
        ({"rounds": 0}, "rounds >= 1"),
        ({"patience": 0}, "patience >= 1"),
        ({"rewind_steps": -1}, "rewind_steps >= 0"),
        ({"epochs": 5, "start_from_epoch": 5}, "start_from_epoch below epochs"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
    ],
)
def test_settings_that_cannot_run(setting, message):
    with pytest.raises(ValueError, match=message):
        Config(**setting)


def test_spaces_in_a_list_do_not_matter():
    config = Config(protocols="one_shot, iterative", ratios="0.1, 0.5")
    assert config.protocols == "one_shot,iterative"
    assert config.pruned_ratios == [0.1, 0.5]


def test_ratios_are_sorted_and_the_dense_network_is_none_of_them():
    assert Config(ratios="0.5,0,0.1,0.5").pruned_ratios == [0.1, 0.5]
    assert list(Config(seed=3, runs=2).seeds) == [3, 4]


def test_the_splits_of_the_moons_are_disjoint_and_balanced():
    data = tasks.two_moons()
    points = np.concatenate([split.images for split in data[1:4]])
    assert len(np.unique(points, axis=0)) == 1000
    for part_, count in zip(data[1:4], (700, 150, 150), strict=True):
        assert len(part_.labels) == count and abs(part_.labels.mean() - 0.5) < 0.01
    again = tasks.two_moons()
    np.testing.assert_array_equal(again.test.images, data.test.images)
