import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from patterns import small_data

from scc_tf import ClusterBudget, datasets, models
from scc_tf.clustering import ChainCosts, chain_counts, find_chains
from scc_tf.pipelines import filter_clustering
from scc_tf.pipelines.distillation import with_teacher
from scc_tf.pipelines.filter_clustering import FOUNDING, GRID, METHODS, Config, Point, Study, correlations, run
from scc_tf.pipelines.filter_clustering.measures import measure
from scc_tf.pipelines.stage import Stage

CONFIG = Config(batch_size=20, statistics_images=60, shift=1, learning_rate=0.01)


def small_net(seed=0):
    he = [keras.initializers.HeNormal(seed + n) for n in range(3)]
    k, image = keras.layers, keras.Input((6, 6, 1))
    x = k.Conv2D(8, 3, use_bias=False, name="conv1", kernel_initializer=he[0])(image)
    x = k.ReLU()(k.BatchNormalization(epsilon=1e-5, momentum=0.9)(x))
    x = k.Conv2D(6, 3, name="conv2", activation="relu", kernel_initializer=he[1])(x)
    return keras.Model(image, k.Dense(10, name="head", kernel_initializer=he[2])(k.Flatten()(x)))


@pytest.fixture(scope="module", autouse=True)
def _data():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda name, data_dir: small_data(name))
        yield


POINTS = [Point(method, (4, 3)) for method in METHODS]
POINTS += [Point("clusters", ClusterBudget(parameters=400, fractions=(0.5, 0.25))), Point("clusters", (4, 3), epochs=2)]


@pytest.fixture(scope="module")
def done(work_dir):
    return run(small_net(), POINTS, CONFIG, work_dir, verbose=0)


@pytest.mark.slow
def test_the_record_is_json_with_the_measures_of_every_point(done):
    assert json.loads(json.dumps(done, allow_nan=False)) == done
    assert set(done["config"]) == {field.name for field in dataclasses.fields(Config)} - {"data_dir"}
    assert [row["method"] for row in done["rows"]] == [*METHODS, "budget", "clusters"]
    assert done["baseline"]["parameters"] == 72 + 16 + 438 + 250
    for row in done["rows"]:
        if row["method"] != "budget":
            assert row["clusters"] == [4, 3] and row["label"] == "4/3"
            assert row["parameters"] == 36 + 8 + 111 + 130
            assert row["multiply_accumulates"] == 36 * 16 + 108 * 4 + 120
        assert set(row["classes"]) == set("0123456789")
        assert all(0 <= row[name] <= 1 for name in ("validation_accuracy", "test_accuracy"))
    budget, tuned = done["rows"][-2:]
    assert budget["parameters"] <= 400 and budget["label"] == "400 parameters"
    assert tuned["epochs"] == 2 and tuned["seconds"] > 0


@pytest.mark.slow
def test_fine_tuning_learns_and_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, learning_rate=0.05, distillation=0.0, shift=0)
    point, epochs = Point("clusters", (7, 5), epochs=20), []

    class Stop(Exception):
        """An interruption."""

    class Counted(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)
            if len(epochs) == 6:
                raise Stop

    fit = Stage.fit
    monkeypatch.setattr(Stage, "fit", lambda self, *a, **o: fit(self, *a, callbacks=[Counted()], **o))
    with pytest.raises(Stop):
        Study(small_net(), config, tmp_path, verbose=0).row(point)
    row = Study(small_net(), config, tmp_path, verbose=0).row(point)
    assert epochs == [0, 1, 2, 3, 4, 5, *range(5, 20)]
    assert row["test_accuracy"] > 0.5


@pytest.mark.slow
def test_a_rerun_computes_nothing(done, work_dir, monkeypatch):
    monkeypatch.setattr(Study, "smaller", lambda *arguments: pytest.fail("made again"))
    monkeypatch.setattr(
        "scc_tf.pipelines.filter_clustering.study.measure", lambda *arguments: pytest.fail("measured again")
    )
    assert run(small_net(), POINTS, CONFIG, work_dir, verbose=0) == done
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        run(small_net(seed=9), POINTS, CONFIG, work_dir, verbose=0)


@pytest.mark.slow
def test_the_controls_keep_the_filters_that_they_say(work_dir):
    network = small_net()
    study = Study(network, CONFIG, work_dir, verbose=0)
    kernel = keras.ops.convert_to_numpy(network.get_layer("conv1").kernel)
    largest = np.sort(np.argsort(-np.abs(kernel).sum(axis=(0, 1, 2)))[:4])
    smaller = study.smaller(Point("l1", (4, 3)))
    np.testing.assert_array_equal(smaller.get_layer("conv1").kernel, kernel[..., largest])
    at_random = [
        keras.ops.convert_to_numpy(study.smaller(Point("random", (4, 3))).get_layer("conv1").kernel) for _ in range(2)
    ]
    np.testing.assert_array_equal(*at_random)
    assert all((kernel == one[..., None]).all(axis=(0, 1, 2)).any() for one in at_random[0].transpose(3, 0, 1, 2))


@pytest.mark.slow
def test_labels_of_a_batch_are_mixed_with_the_answers_to_that_batch():
    teacher, data = small_net(), small_data()
    batches = tf.data.Dataset.from_tensor_slices((data.train.images, data.train.labels)).batch(40)
    (images, mixed) = next(iter(with_teacher(batches, teacher, 0.3, 2.0, 10)))
    said = keras.ops.softmax(teacher(images, training=False) / 2)
    np.testing.assert_allclose(mixed, 0.3 * said + 0.7 * np.eye(10)[data.train.labels[:40]], atol=1e-5)
    alone = with_teacher(batches, None, 0.0, 2.0, 10)
    np.testing.assert_array_equal(next(iter(alone))[1], np.eye(10)[data.train.labels[:40]])


def test_measures_are_those_of_the_answers():
    class Constant:
        """Says 3, whatever it is shown."""

        trainable_weights = ()

        def __call__(self, images, training):
            return keras.ops.one_hot(np.full(len(images), 3), 10)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "scc_tf.pipelines.filter_clustering.measures.count_operations",
            lambda network: type("Count", (), {"multiply_accumulates": 7}),
        )
        values = measure(Constant(), small_data())
    assert values["test_accuracy"] == pytest.approx(0.1)
    assert values["classes"]["3"] == pytest.approx({"precision": 0.1, "recall": 1.0, "f1": 0.2 / 1.1})
    assert values["classes"]["4"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


# tables --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_parameter_columns_of_the_founding_tables():
    model = models.resnet20(seed=0)
    chains = find_chains(model)
    costs = ChainCosts(model, chains)
    parameters = [costs.parameters(chain_counts(chains, clusters)) for clusters in GRID]
    assert parameters == [269_722 - 870 * (16 - i) - 1590 * (32 - j) - 3174 * (64 - k) for i, j, k in GRID]
    found = correlations(GRID, np.arange(27) % 5, parameters)
    assert found["columns"][-1] == "parameters"
    for kind, wanted in {"pearson": (0.066326, 0.242432, 0.967899), "spearman": (0.104828, 0.314485, 0.943456)}.items():
        assert [round(row[-1], 6) for row in found[kind][:3]] == list(wanted)
        assert found[kind][-1][-1] == pytest.approx(1)


def test_correlations_are_those_of_scipy():
    from scipy import stats

    rng = np.random.default_rng(0)
    accuracies, parameters = rng.random(27).round(1), rng.integers(10**6, size=27)
    found = correlations(GRID, accuracies, parameters)
    assert found["pearson"][3][4] == pytest.approx(stats.pearsonr(accuracies, parameters).statistic)
    assert found["spearman"][1][3] == pytest.approx(stats.spearmanr(np.array(GRID)[:, 1], accuracies).statistic)
    assert set(FOUNDING) == {"pearson", "spearman"}
    constant = correlations(GRID, np.ones(27), parameters)
    assert constant["pearson"][0][3] is None
    with pytest.raises(ValueError, match="Expected clusters"):
        correlations(GRID, accuracies[:3], parameters)


# settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"space": "magic"}, "space='magic'"),
        ({"merge": "magic"}, "merge='magic'"),
        ({"distillation": 1.5}, "distillation=1.5"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_settings_that_cannot_run(setting, message):
    with pytest.raises(ValueError, match=message):
        Config(**setting)


@pytest.mark.parametrize("arguments", [("magic", (2,)), ("l1", ClusterBudget(parameters=5)), ("clusters", (2,), -1)])
def test_points_that_cannot_be(arguments):
    with pytest.raises(ValueError, match="Expected a method"):
        Point(*arguments)


def test_rows_without_fine_tuning_do_not_depend_on_its_settings():
    other = dataclasses.replace(CONFIG, learning_rate=0.5)
    assert other.key(tuned=False) == CONFIG.key(tuned=False)
    assert other.key(tuned=True) != CONFIG.key(tuned=True)
    assert dataclasses.replace(CONFIG, merge="sum").key(tuned=False) != CONFIG.key(tuned=False)
    assert filter_clustering.Point("clusters", (8, 16, 32)).label == "8/16/32"
