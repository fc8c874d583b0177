import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from lab import datasets, filter_clustering, models
from lab.filter_clustering import FOUNDING, GRID, METHODS, Config, Point, Study, correlations, run
from lab.filter_clustering.distillation import DistillationLoss, label_accuracy, with_answers
from lab.filter_clustering.measures import measure
from lab.stage import Stage
from patterns import small_data

from scc_tf import ClusterBudget
from scc_tf.clustering import ChainCosts, chain_counts, find_chains

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
def test_a_network_that_was_made_is_had_with_its_weights(done, work_dir):
    study, point = Study(small_net(), CONFIG, work_dir, verbose=0), POINTS[-1]
    assert measure(study.made(point), study.data).items() <= done["rows"][-1].items()


@pytest.mark.slow
def test_every_draw_of_random_filters_is_another():
    study = Study(small_net(), CONFIG, None, verbose=0)
    kernels = [study.smaller(Point("random", (4, 3), draw=draw)).get_layer("conv1").kernel for draw in (0, 1, 0)]
    assert np.array_equal(kernels[0], kernels[2]) and not np.array_equal(kernels[0], kernels[1])
    names = {Point("random", (4, 3), draw=draw).name for draw in (0, 1, 2)}
    assert len(names) == 3
    with pytest.raises(ValueError, match="a draw for random filters alone"):
        Point("l1", (4, 3), draw=1)


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
    monkeypatch.setattr("lab.filter_clustering.study.measure", lambda *arguments: pytest.fail("measured again"))
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
def test_labels_of_a_batch_carry_the_answers_to_that_batch():
    teacher, data = small_net(), small_data()
    batches = tf.data.Dataset.from_tensor_slices((data.train.images, data.train.labels)).batch(40)
    images, labels = next(iter(with_answers(batches, teacher)))
    np.testing.assert_array_equal(labels[:, 0], data.train.labels[:40])
    np.testing.assert_allclose(labels[:, 1:], teacher(images, training=False), atol=1e-5)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("weight", "temperature"), [(0.0, 2.0), (0.3, 1.0), (0.7, 4.0), (1.0, 2.0)])
def test_the_loss_asks_both_networks_at_the_same_temperature(weight, temperature):
    rng = np.random.default_rng(0)
    labels, said, logits = rng.integers(10, size=5), *rng.normal(scale=3, size=(2, 5, 10))
    packed = np.column_stack([labels, said]).astype(np.float32)
    hard = -log_softmax(logits)[np.arange(5), labels]
    soft = -(np.exp(log_softmax(said / temperature)) * log_softmax(logits / temperature)).sum(axis=1)
    loss = DistillationLoss(weight, temperature)(packed, logits.astype(np.float32))
    wanted = ((1 - weight) * hard + weight * temperature**2 * soft).mean()
    assert float(loss) == pytest.approx(wanted, rel=1e-4)


def test_the_answers_of_the_teacher_are_where_its_loss_is_smallest():
    """Not so where one of the two alone is divided by the temperature."""
    said = np.random.default_rng(0).normal(scale=3, size=(5, 10)).astype(np.float32)
    logits = tf.Variable(said)
    with tf.GradientTape() as tape:
        loss = DistillationLoss(1.0, 4.0)(np.column_stack([np.zeros(5, np.float32), said]), logits)
    np.testing.assert_allclose(tape.gradient(loss, logits), np.zeros_like(said), atol=1e-6)


def test_accuracy_beside_the_loss_is_that_of_the_labels():
    logits = np.eye(10, dtype=np.float32)[[3, 4]]
    packed = np.column_stack([[3, 5], -logits]).astype(np.float32)
    np.testing.assert_array_equal(label_accuracy(packed, logits), [1, 0])


@pytest.mark.slow
def test_fine_tuning_listens_to_the_original_network_where_it_is_asked_to(done, tmp_path, monkeypatch):
    losses = []
    fit = Stage.fit

    def watched(self, model, *arguments, **options):
        losses.append(model.loss)
        return fit(self, model, *arguments, **options)

    monkeypatch.setattr(Stage, "fit", watched)
    for weight in (0.0, 0.5):
        config = dataclasses.replace(CONFIG, distillation=weight)
        row = Study(small_net(), config, tmp_path, verbose=0).row(Point("clusters", (4, 3), epochs=2))
        assert 0 <= row["test_accuracy"] <= 1 and row["epochs"] == 2
    assert [type(loss).__name__ for loss in losses] == ["SparseCategoricalCrossentropy", "DistillationLoss"]
    assert (losses[1].weight, losses[1].temperature) == (0.5, CONFIG.temperature)
    assert Config().distillation == 0


def test_measures_are_those_of_the_answers():
    data = small_data()
    shape = data.test.images.shape[1:]
    says_3 = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(10)])
    says_3.layers[-1].set_weights([np.zeros((np.prod(shape), 10)), np.eye(10)[3]])
    values = measure(says_3, data)
    assert values["multiply_accumulates"] == 10 * np.prod(shape) == values["parameters"] - 10
    assert values["test_accuracy"] == pytest.approx(0.1)
    assert values["classes"]["3"] == pytest.approx(
        {"precision": 0.1, "recall": 1.0, "f1-score": 0.2 / 1.1, "support": len(data.test.labels) / 10}
    )
    assert values["classes"]["4"]["f1-score"] == 0


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "clusters", [(9, 3), (4, 0), (4, 3, 2), ClusterBudget(parameters=10), ClusterBudget(multiply_accumulates=10)]
)
def test_points_that_do_not_fit_the_network_are_refused_before_anything_is_made(clusters, tmp_path):
    points = [Point("clusters", (4, 3)), Point("clusters", clusters)]
    with pytest.raises(ValueError, match="Expected"):
        run(small_net(), points, CONFIG, tmp_path, verbose=0)
    assert list(tmp_path.iterdir()) == []


def test_budgets_that_differ_in_what_is_tried_are_cached_apart():
    names = [
        Point("clusters", ClusterBudget(**budget)).name
        for budget in ({"parameters": 400}, {"parameters": 400, "fractions": (0.5,)}, {"multiply_accumulates": 400})
    ]
    assert len(set(names)) == 3
    assert all(set("/ ").isdisjoint(name) for name in names)
    assert Point("clusters", (8, 16, 32), 20).name == "clusters-8-16-32-20"


def test_the_place_of_the_data_is_no_part_of_a_row():
    moved = dataclasses.replace(CONFIG, data_dir="elsewhere")
    assert [moved.key(tuned) for tuned in (False, True)] == [CONFIG.key(tuned) for tuned in (False, True)]


def test_rows_without_fine_tuning_do_not_depend_on_its_settings():
    other = dataclasses.replace(CONFIG, learning_rate=0.5)
    assert other.key(tuned=False) == CONFIG.key(tuned=False)
    assert other.key(tuned=True) != CONFIG.key(tuned=True)


def test_rows_do_not_depend_on_what_their_method_has_of_its_own():
    other = dataclasses.replace(CONFIG, merge="sum")
    keys = {name: [c.key(tuned, name) for c in (CONFIG, other) for tuned in (False, True)] for name in METHODS}
    assert {name for name, own in keys.items() if own[:2] == own[2:]} == {*METHODS} - {"clusters"}
    other = dataclasses.replace(CONFIG, space="raw")
    assert {name for name in METHODS if other.key(False, name) != CONFIG.key(False, name)} == {"clusters", "summed"}


def test_the_label_of_a_point_is_what_was_asked_for():
    assert filter_clustering.Point("clusters", (8, 16, 32)).label == "8/16/32"
