import dataclasses

import keras
import numpy as np
import pytest

from scc_tf.safety import SafetySet, select_safety_set
from scc_tf.safety.attention import cam_batches, resize_maps
from scc_tf.safety.criteria import cluster, margin, pool_features

L = keras.layers
FIELDS = [field.name for field in dataclasses.fields(SafetySet)]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            L.Input((8, 8, 3)),
            L.Conv2D(6, 3, activation="relu"),
            L.Conv2D(6, 3, activation="relu"),
            L.Flatten(),
            L.Dropout(0.5),
            L.Dense(4, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(120, 8, 8, 3)).astype(np.float32)
    return images, rng.integers(0, 4, 120)


@pytest.fixture(scope="module")
def safety_set(model, data):
    return select_safety_set(model, *data, size=32, batch_size=50)


def of(safety_set, reason):
    return safety_set.indices[safety_set.reasons == reason]


def same(one, other):
    return all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and np.array_equal(getattr(one, name), getattr(other, name))
        for name in FIELDS
    )


def test_exactly_the_size_in_equal_shares_without_repeats(safety_set):
    assert len(safety_set) == len(safety_set.indices) == len(set(safety_set.indices.tolist())) == 32
    assert [len(of(safety_set, reason)) for reason in ("attention", "uncertainty", "diversity")] == [
        11,
        11,
        10,
    ]


def test_images_and_labels_stay_together(safety_set, data):
    np.testing.assert_array_equal(safety_set.images, data[0][safety_set.indices])
    np.testing.assert_array_equal(safety_set.labels, data[1][safety_set.indices])


def test_the_attended_have_the_highest_scores(safety_set, model, data):
    (seen,) = cam_batches(model, data[0])
    scores = seen.maps.sum(axis=(1, 2))
    assert of(safety_set, "attention").tolist() == np.argsort(-scores, kind="stable")[:11].tolist()
    np.testing.assert_allclose(safety_set.attention, scores[safety_set.indices], atol=1e-4)


def test_the_uncertain_have_the_smallest_margins_of_the_rest(safety_set, model, data):
    margins = margin(model.predict_on_batch(data[0]))
    rest = [i for i in np.argsort(margins).tolist() if i not in of(safety_set, "attention")]
    assert of(safety_set, "uncertainty").tolist() == rest[:11]
    np.testing.assert_allclose(safety_set.margin, margins[safety_set.indices], atol=1e-5)


def test_the_diverse_come_one_from_each_cluster_of_the_whole_set(safety_set, model, data):
    last = keras.Model(model.inputs[0], model.layers[1].output)
    clusters = cluster(pool_features(last.predict_on_batch(data[0])))
    assert sorted(clusters[of(safety_set, "diversity")].tolist()) == list(range(10))
    np.testing.assert_array_equal(safety_set.cluster, clusters[safety_set.indices])


@pytest.mark.slow
def test_heat_maps_are_those_of_the_selected(safety_set, model, data):
    assert safety_set.heat_maps.dtype == np.uint8
    (seen,) = cam_batches(model, data[0][safety_set.indices])
    expected = 255 * resize_maps(seen.maps, (8, 8))
    assert np.abs(safety_set.heat_maps - expected).max() <= 0.51


@pytest.mark.slow
def test_the_seed_moves_only_the_diverse(safety_set, model, data):
    assert same(safety_set, select_safety_set(model, *data, size=32, batch_size=50))
    other = select_safety_set(model, *data, size=32, batch_size=50, seed=1)
    for reason, equal in (("attention", True), ("uncertainty", True), ("diversity", False)):
        assert np.array_equal(of(safety_set, reason), of(other, reason)) is equal


@pytest.mark.slow
def test_the_model_is_left_as_it_was(model, data):
    before, answers = model.get_weights(), model.predict_on_batch(data[0])
    select_safety_set(model, *data, size=5)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    np.testing.assert_array_equal(answers, model.predict_on_batch(data[0]))
    assert model.layers[-1].activation is keras.activations.softmax


def test_logits_choose_the_same_examples_as_their_softmax(safety_set, model, data):
    logits = L.Dense(4)
    twin = keras.Model(model.inputs[0], logits(model.layers[-1].input))
    logits.set_weights(model.layers[-1].get_weights())
    chosen = select_safety_set(twin, *data, size=32, batch_size=50)
    np.testing.assert_array_equal(chosen.indices, safety_set.indices)
    np.testing.assert_allclose(chosen.margin, safety_set.margin, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "shares", "expected"),
    [
        (1, (1, 1, 1), [1, 0, 0]),
        (2, (1, 1, 1), [1, 1, 0]),
        (120, (1, 1, 1), [40, 40, 40]),
        (20, (0, 1, 3), [0, 5, 15]),
        (20, (0.5, 0.5, 0), [10, 10, 0]),
        (7, (0, 0, 1), [0, 0, 7]),
    ],
)
def test_shares(model, data, size, shares, expected):
    chosen = select_safety_set(model, *data, size=size, shares=shares)
    assert [len(of(chosen, reason)) for reason in ("attention", "uncertainty", "diversity")] == expected
    assert len(set(chosen.indices.tolist())) == size
    assert (chosen.cluster == -1).all() == (expected[2] == 0)


@pytest.mark.slow
def test_progress_is_shown_on_request_only(model, data, capsys):
    select_safety_set(model, *data, size=3, verbose=0)
    select_safety_set(model, *data, size=3)  # "auto", and pytest is no terminal
    assert capsys.readouterr().out == ""
    select_safety_set(model, *data, size=3, verbose=1)
    assert "120/120" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": np.zeros(119, int)}, r"one label per example, 120.*shape=\(119,\)"),
        ({"labels": np.zeros((120, 4), int)}, "not one-hot"),
        ({"labels": np.full(120, 0.5)}, "dtype=float64"),
        ({"labels": np.full(120, 4)}, "Expected labels to hold classes from 0 to 3.*from 4 to 4"),
        ({"labels": np.full(120, -1)}, "from -1 to -1"),
        ({"size": 0}, "Received: size=0"),
        ({"size": 121}, "the 120 images. Received: size=121"),
        ({"size": 2.5}, "size to be a whole number.*size=2.5"),
        ({"shares": (1, 1)}, "three shares"),
        ({"shares": (0, 0, 0)}, "not all 0"),
        ({"shares": (1, -1, 1)}, "three shares"),
        ({"verbose": 2}, "verbose=2"),
        ({"images": np.zeros((120, 8, 9, 3))}, r"shape \(None, 8, 8, 3\)"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "x"}, "seed='x'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"images": np.full((120, 8, 8, 3), np.nan)}, "images to be finite"),
        ({"images": np.zeros((0, 8, 8, 3)), "labels": np.zeros(0, int)}, "at least one example"),
        ({"model": None}, "functional or Sequential"),
    ],
)
def test_arguments_are_checked(model, data, wrong, message):
    arguments = {"model": model, "images": data[0], "labels": data[1], "size": 5, **wrong}
    with pytest.raises(ValueError, match=message):
        select_safety_set(**arguments)


def spread(dtype, highest=255):
    """Images whose brightness is their class, of any type."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    levels = (labels[:, None, None, None] + rng.random((60, 8, 8, 1))) / 3
    return (highest * levels).astype(dtype), labels


def bright(*first, dtype="float32"):
    """A network that knows them: it measures the brightness, in [0, 1] behind its first layers."""
    layers = [*first, L.Conv2D(1, 1), L.GlobalAveragePooling2D(), L.Dense(3, "softmax")]
    model = keras.Sequential([L.Input((8, 8, 1), dtype=dtype), *layers])
    middles = np.array([1, 3, 5]) / 6
    model.layers[-1].set_weights([90 * middles[None], -45 * middles**2])
    model.layers[-3].set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.moving_variance.assign([255.0**2])
    return model


@pytest.mark.parametrize(
    ("dtype", "first"),
    [
        ("float32", lambda: [L.Rescaling(1 / 255)]),
        ("uint8", lambda: [L.Rescaling(1 / 255)]),
        ("uint8", lambda: [L.BatchNormalization()]),
        ("float64", lambda: [L.BatchNormalization()]),
        ("int32", lambda: [L.Rescaling(1 / 255)]),
    ],
)
def test_images_come_back_as_they_were_handed_in(dtype, first, caplog):
    """Whatever the network takes; and not a word of them, as it knows their classes."""
    images, labels = spread(dtype)
    model = bright(*first(), dtype="uint8" if dtype == "uint8" else "float32")
    chosen = select_safety_set(model, images, labels[:, None], size=9, verbose=0)
    assert chosen.images.dtype == images.dtype and chosen.labels.dtype == np.int64
    np.testing.assert_array_equal(chosen.images, images[chosen.indices])
    np.testing.assert_array_equal(chosen.labels, labels[chosen.indices])
    assert chosen.heat_maps.any()
    assert "scaled" not in caplog.text


def test_images_of_another_scale_than_in_training_are_warned_of(caplog):
    images, labels = spread("float32", highest=1)
    model = bright()
    select_safety_set(model, images, labels, size=9, verbose=0)
    assert "scaled" not in caplog.text
    model.layers[-1].bias.assign_add([0, 0, 1e3])
    select_safety_set(model, images, labels, size=9, verbose=0)
    assert "gets 33.3 % of these examples right, where chance gives 33.3 %" in caplog.text


def test_labels_may_be_one_hot(model, data, safety_set):
    chosen = select_safety_set(model, data[0], np.eye(4)[data[1]], size=32, batch_size=50)
    assert same(chosen, safety_set)


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((6,), lambda: [L.Dense(4, "relu")]),
        ((12, 2), lambda: [L.Conv1D(4, 3), L.GlobalAveragePooling1D()]),
        ((5, 2), lambda: [L.LSTM(4)]),
        ((6, 6, 1), lambda: [L.Flatten()]),
    ],
)
@pytest.mark.parametrize("head", [lambda: L.Dense(3), lambda: L.Dense(1, "sigmoid")])
def test_without_a_convolution_the_other_criteria_choose(shape, layers, head, caplog, tmp_path):
    model = keras.Sequential([L.Input(shape), *layers(), head()])
    images = np.random.default_rng(0).normal(size=(30, *shape)).astype(np.float32)
    chosen = select_safety_set(model, images, np.arange(30) % 2, size=9, verbose=0)
    assert sorted(chosen.reasons.tolist()) == ["diversity"] * 4 + ["uncertainty"] * 5
    assert "no 2-D convolution" in caplog.text
    assert chosen.heat_maps.shape == (9, 0, 0) and not chosen.attention.any()
    np.testing.assert_array_equal(chosen.images, images[chosen.indices])
    chosen.save(tmp_path / "set.npz")
    assert same(chosen, SafetySet.load(tmp_path / "set.npz"))
    with pytest.raises(ValueError, match=r"without a 2-D convolution.*shares=\(1, 0, 0"):
        select_safety_set(model, images, np.arange(30) % 2, size=9, shares=(1, 0, 0), verbose=0)


def test_several_inputs_are_refused():
    ends = [L.Input((3,)), L.Input((3,))]
    model = keras.Model(ends, L.Dense(2)(L.Add()(ends)))
    with pytest.raises(ValueError, match=r"one input.*2 inputs"):
        select_safety_set(model, [np.ones((4, 3))] * 2, np.zeros(4, int), size=2)


@pytest.mark.parametrize("name", FIELDS)
def test_a_part_that_is_no_array_is_refused_by_name(safety_set, name):
    with pytest.raises(ValueError, match=f"Expected {name} to be a NumPy array. Received: {name}="):
        dataclasses.replace(safety_set, **{name: [1]})


def test_parts_that_do_not_belong_together_are_refused(safety_set):
    for wrong in (
        {"labels": safety_set.labels[:-1]},
        {"heat_maps": safety_set.heat_maps[:, :-1]},
        {"reasons": np.full(32, "luck")},
        {"labels": safety_set.labels + 0.5},
    ):
        with pytest.raises(ValueError, match="Received"):
            dataclasses.replace(safety_set, **wrong)


def test_it_is_shown_in_one_line(safety_set):
    shown = "SafetySet of 32 examples (8, 8, 3): 11 for attention, 11 for uncertainty, 10 for diversity"
    assert repr(safety_set) == shown


def test_it_cannot_be_changed(safety_set):
    with pytest.raises(dataclasses.FrozenInstanceError):
        safety_set.labels = None


def test_save_and_load_give_the_same_bits(safety_set, tmp_path):
    path = tmp_path / "set.of_mine"
    safety_set.save(path)
    again = SafetySet.load(str(path))
    assert same(safety_set, again)
    first = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["set.of_mine"]


def test_a_failed_save_keeps_the_old_file(safety_set, tmp_path, monkeypatch):
    path = tmp_path / "set.npz"
    safety_set.save(path)

    def fail(file, **parts):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        safety_set.save(path)
    assert same(safety_set, SafetySet.load(path))
    assert [file.name for file in tmp_path.iterdir()] == ["set.npz"]


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        SafetySet.load(tmp_path / "nothing.npz")


def test_foreign_files(safety_set, tmp_path):
    path = tmp_path / "foreign"
    np.savez(tmp_path / "other.npz", images=np.ones(3))
    np.savez(tmp_path / "later.npz", format=np.array("scc_tf.safety_set/2"), **dataclasses.asdict(safety_set))
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "pickle.npz", format=np.array([{}], object))
    contents = [p.read_bytes() for p in tmp_path.iterdir()]
    assert len(contents) == 4
    for content in (*contents, b"", b"PK", b"no zip at all"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected a file that SafetySet.save wrote"):
            SafetySet.load(path)


@pytest.mark.slow
def test_truncated_and_damaged_files(safety_set, tmp_path):
    small = SafetySet(**{name: getattr(safety_set, name)[:2] for name in FIELDS})
    path = tmp_path / "set.npz"
    small.save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="something else or damaged"):
            SafetySet.load(path)
    refused = 0
    for place in range(0, len(whole), 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert same(small, SafetySet.load(path))  # a byte that carries nothing: a date, a file attribute
        except ValueError:
            refused += 1
    assert refused > 0.7 * len(whole) / 23
