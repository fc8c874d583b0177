import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import scc_tf
from scc_tf.compression.objective import objective_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def classifier(activation="softmax", units=3):
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(16, "relu", name="a"),
        keras.layers.Dense(units, activation, name="b"),
    ]
    return keras.Sequential(layers)


@pytest.fixture(scope="module")
def trained():
    model = classifier()
    model.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    model.fit(X, Y, epochs=15, batch_size=32, verbose=0)
    return model


def accuracy(model):
    return np.mean(model.predict(X, verbose=0).argmax(-1) == Y)


@pytest.mark.slow
def test_a_size_is_reached_and_all_ways_out_agree(trained, tmp_path):
    before = trained.get_weights()
    small = scc_tf.compress(trained, (X, Y), 620, epochs=8, verbose=0)
    report = small.save(tmp_path / "small.scc")
    assert report.stored_bytes == small.stored_bytes == (tmp_path / "small.scc").stat().st_size <= 620
    assert accuracy(small.model) > accuracy(trained) - 0.05
    assert {type(layer) for layer in small.model.layers} == {keras.layers.InputLayer, keras.layers.Dense}
    small.save(tmp_path / "small.keras")
    expected = small.model.predict(X, verbose=0)
    for path in ("small.scc", "small.keras"):
        load = scc_tf.load_packed if path.endswith("scc") else keras.models.load_model
        np.testing.assert_array_equal(load(tmp_path / path).predict(X, verbose=0), expected)
    small.export_tflite(tmp_path / "small.tflite")
    np.testing.assert_allclose(scc_tf.export.run_tflite(tmp_path / "small.tflite", X), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"\.scc or \.keras"):
        small.save(tmp_path / "small.tflite")
    for one, other in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_report_says_what_became_of_it(trained):
    small = scc_tf.compress(trained, (X, Y), epochs=0, verbose=0)
    said = json.loads(small.to_json())
    assert said["float32_bytes"] == 4 * trained.count_params()
    assert said["stored_bytes"] < said["float32_bytes"] and said["covered"] == 1.0
    assert said["operations"] == [6 * 16 + 16 * 3] * 2
    assert said["scores"]["accuracy"][1] == pytest.approx(said["scores"]["accuracy"][0], abs=0.1)
    for words in ("bytes under gzip", "accuracy", "safety accuracy", "multiply-accumulates", "parameters covered"):
        assert words in str(small)
    assert "<table>" in small._repr_html_()


def twins(x):
    return {"dict": {"left": x[:, :3], "right": x[:, 3:]}, "list": [x[:, :3], x[:, 3:]]}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dict", "list"])
def test_several_inputs_and_no_labels(form):
    keras.utils.set_random_seed(2)
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    both = keras.layers.Dense(8, "tanh")(keras.layers.Concatenate()([left, right]))
    inputs = {"left": left, "right": right} if form == "dict" else [left, right]
    model = keras.Model(inputs, keras.layers.Dense(2)(both))
    small = scc_tf.compress(model, twins(X)[form], gamma=1e-4, epochs=2, verbose=0)
    assert small.distance < 0.2 and small.safety is None
    assert any("several inputs" in note for note in small.notes)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 15

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return X[rows], Y[rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(16),
        lambda: tf.data.Dataset.from_tensor_slices(X).batch(16),
        Batches,
        lambda: (X.tolist(), keras.utils.to_categorical(Y)),
        lambda: (X, Y, np.ones(len(X))),
        lambda: X,
    ],
    ids=["dataset", "dataset without labels", "py dataset", "one-hot", "sample weights", "inputs alone"],
)
def test_data_in_any_form(trained, data):
    small = scc_tf.compress(trained, data(), gamma=1e-3, epochs=1, verbose=0)
    assert accuracy(small.model) > accuracy(trained) - 0.1
    assert small.safe
    assert set(small.scores) == {"loss", "accuracy"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "units", "targets", "scores"),
    [
        ("sigmoid", 1, X[:, 0] > 0, {"loss", "accuracy"}),
        (None, 3, Y, {"loss", "accuracy"}),
        (None, 2, X[:, :2], {"loss"}),
        ("sigmoid", 2, X[:, :2] > 0, {"loss", "accuracy"}),
    ],
    ids=["yes or no", "logits", "numbers", "several answers"],
)
def test_the_loss_is_found_out(activation, units, targets, scores):
    small = scc_tf.compress(classifier(activation, units), (X, targets), gamma=1e-3, epochs=2, verbose=0)
    assert set(small.scores) == scores
    assert small.scores["loss"][1] < small.scores["loss"][0]  # it has learned
    assert small.stored_bytes < small.float32_bytes


def test_numbers_of_any_size_weigh_as_much_beside_the_size_term():
    objective = objective_of(classifier(None, 2), X, 1e4 * X[:, :2])
    assert objective.loss_weights[0] * np.mean(np.var(1e4 * X[:, :2], axis=0)) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_file(trained, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    settings = {"gamma": 0.01, "epochs": 3, "verbose": 0}
    whole = scc_tf.compress(trained, (X, Y), **settings)
    with pytest.raises(KeyboardInterrupt):
        scc_tf.compress(trained, (X, Y), **settings, work_dir=tmp_path / "work", callbacks=[Stop()])
    again = scc_tf.compress(trained, (X, Y), **settings, work_dir=tmp_path / "work")
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="work_dir"):
        scc_tf.compress(trained, (X, Y), 700, epochs=3, verbose=0, work_dir=tmp_path / "work")


@pytest.mark.parametrize(
    ("targets", "said"),
    [(Y + 1, "classes from 0 to 2"), (Y + 0.5, "targets"), (Y.astype(str), "finite numbers"), (Y * np.nan, "finite")],
)
def test_targets_that_mean_nothing_are_refused(targets, said):
    with pytest.raises(ValueError, match=said):
        scc_tf.compress(classifier(), (X, targets), 600)


@pytest.mark.slow
def test_open_inputs_and_repeated_names_have_a_report_too():
    inner = [keras.Sequential([keras.Input((None, 4)), keras.layers.Dense(4, name="fc")]) for _ in range(2)]
    model = keras.Sequential([keras.Input((None, 4)), *inner, keras.layers.GlobalAveragePooling1D()])
    small = scc_tf.compress(model, X[:, :4, None].repeat(4, axis=2), epochs=0, verbose=0)
    assert small.covered == 1.0
    assert small.operations == (None, None) and "unknown" in str(small)


@pytest.mark.slow
def test_what_no_file_can_hold_is_refused_before_training():
    layers = [keras.Input((6,)), keras.layers.Lambda(lambda x: 2 * x, name="twice"), keras.layers.Dense(3)]
    with pytest.raises(ValueError, match="twice"):
        scc_tf.compress(keras.Sequential(layers), (X, Y), 600, verbose=0)


@pytest.mark.slow
def test_an_impossible_target_gives_the_smallest_file_that_safety_allows(trained):
    sizes = [scc_tf.compress(trained, (X, Y), target, epochs=0, verbose=0).stored_bytes for target in (500, 200)]
    assert sizes[0] <= 500 and sizes[1] <= sizes[0]


def test_what_is_wanted_is_said_once(trained):
    with pytest.raises(ValueError, match="not both"):
        scc_tf.compress(trained, (X, Y), 600, gamma=1.0)
    with pytest.raises(ValueError, match="Expected target_bytes"):
        scc_tf.compress(trained, (X, Y))
    with pytest.raises(ValueError, match="targets"):
        scc_tf.compress(trained, (X, Y[:5]), 600)
    with pytest.raises(ValueError, match="data"):
        scc_tf.compress(trained, X[:, :3], 600)
    with pytest.raises(ValueError, match="without an end"):
        scc_tf.compress(trained, tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat(), 600)
