import os

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from lab import datasets

DATA_DIR = os.environ.get("SCC_TF_DATA_DIR")
needs_data_dir = pytest.mark.skipif(not DATA_DIR, reason="SCC_TF_DATA_DIR does not name a folder of TFDS sets")


@pytest.fixture(autouse=True)
def empty_keras_cache(monkeypatch, tmp_path_factory):
    home = tmp_path_factory.mktemp("keras")
    (home / "datasets").mkdir()
    monkeypatch.setenv("KERAS_HOME", str(home))
    return home / "datasets"


def small_arrays(n_train=40, n_test=10, classes=4):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (n_train, 6, 5), np.uint8),
        "y_train": np.arange(n_train, dtype=np.uint8) % classes,
        "x_test": rng.integers(0, 256, (n_test, 6, 5), np.uint8),
        "y_test": np.arange(n_test, dtype=np.uint8) % classes,
    }


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "small.npz", **small_arrays())
    return tmp_path


def assert_same(a, b):
    for first, second in zip(a, b, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def mnist():
    return datasets.load("mnist", download=False)


@pytest.mark.slow
def test_mnist_needs_no_network_and_is_the_published_set(mnist):
    assert mnist.name == "mnist"
    assert [len(split.labels) for split in (mnist.train, mnist.validation, mnist.test)] == [
        54_000,
        6_000,
        10_000,
    ]
    assert mnist.class_names == tuple("0123456789")
    assert mnist.num_classes == 10
    for split in (mnist.train, mnist.validation, mnist.test):
        assert split.images.shape == (*split.labels.shape, 28, 28, 1)
        assert (split.images.dtype, split.labels.dtype) == (np.float32, np.int64)
        assert (split.images.min(), split.images.max()) == (0, 1)
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counted = np.bincount(np.concatenate([mnist.train.labels, mnist.validation.labels]))
    assert counted.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_mnist_validation_split_is_stratified(mnist):
    share = np.bincount(mnist.validation.labels) / np.bincount(mnist.train.labels)
    np.testing.assert_allclose(share, 1 / 9, atol=5e-4)


def test_no_training_image_is_lost_or_held_out_twice(folder):
    data = datasets.load("small", folder, validation=7, seed=1)
    images = np.concatenate([data.train.images, data.validation.images]).reshape(40, -1)
    expected = small_arrays()["x_train"].reshape(40, -1)
    assert sorted(map(tuple, np.rint(images * 255).astype(int))) == sorted(map(tuple, expected.astype(int)))


def test_splits_keep_the_published_order_and_the_test_split_is_untouched(folder):
    data, arrays = datasets.load("small", folder), small_arrays()
    position = {image.tobytes(): i for i, image in enumerate(arrays["x_train"])}
    for split in (data.train, data.validation):
        order = [position[np.rint(i * 255).astype(np.uint8).tobytes()] for i in split.images]
        assert order == sorted(order)
        np.testing.assert_array_equal(split.labels, arrays["y_train"][order])
    np.testing.assert_allclose(data.test.images[..., 0] * 255, arrays["x_test"], rtol=1e-6)
    np.testing.assert_array_equal(data.test.labels, arrays["y_test"])


def test_the_seed_decides_the_split(folder):
    first, again, other = (datasets.load("small", folder, validation=0.5, seed=s) for s in (3, 3, 4))
    assert_same(first.validation, again.validation)
    assert not np.array_equal(first.validation.images, other.validation.images)
    assert_same(first.test, other.test)


@pytest.mark.parametrize(("validation", "count"), [(0.1, 4), (0.0, 0), (7, 7), (1, 1), (39, 39), (np.float64(0.5), 20)])
def test_validation_is_a_fraction_or_a_count(folder, validation, count):
    data = datasets.load("small", folder, validation=validation)
    assert (len(data.validation.labels), len(data.train.labels)) == (count, 40 - count)


@pytest.mark.parametrize("validation", [-0.1, 1.0, -1, 40])
def test_a_validation_split_that_leaves_nothing_is_refused(folder, validation):
    with pytest.raises(ValueError, match="validation="):
        datasets.load("small", folder, validation=validation)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.data())
def test_holdout_gives_each_class_its_share(labels, data):
    labels = np.array(labels)
    count = data.draw(st.integers(0, len(labels)))
    chosen = datasets.stratified_holdout(labels, count, seed=0)
    assert len(chosen) == count
    assert np.array_equal(chosen, np.unique(chosen))
    for c in np.unique(labels):
        assert abs((labels[chosen] == c).sum() - count * (labels == c).mean()) < 1


@pytest.mark.parametrize("count", [-1, 4])
def test_holdout_of_more_than_there_is_is_refused(count):
    with pytest.raises(ValueError, match=f"count={count}"):
        datasets.stratified_holdout([0, 1, 2], count, seed=0)


@pytest.mark.slow
def test_the_named_folder_comes_before_the_embedded_copy_and_the_cache_last(tmp_path, empty_keras_cache):
    np.savez(tmp_path / "mnist.npz", **small_arrays())
    np.savez(empty_keras_cache / "mnist.npz", **small_arrays(n_train=20))
    np.savez(empty_keras_cache / "cached.npz", **small_arrays(n_train=20))
    assert datasets.load_split("mnist", "train", tmp_path).labels.shape == (40,)
    assert datasets.load_split("mnist", "train").labels.shape == (60_000,)
    assert datasets.load_split("cached", "train", tmp_path).labels.shape == (20,)


@pytest.mark.slow
def test_a_tfds_folder_in_the_named_folder_comes_before_all_others(tmp_path, empty_keras_cache):
    write_tfds_set(tmp_path, small_arrays())
    np.savez(empty_keras_cache / "tiny_set.npz", **small_arrays(n_train=20))
    assert datasets.load_split("tiny_set", "train", tmp_path).labels.shape == (40,)
    np.savez(tmp_path / "tiny_set.npz", **small_arrays(n_train=30))
    assert datasets.load_split("tiny_set", "train", tmp_path).labels.shape == (30,)


def test_a_folder_that_tfds_did_not_prepare_is_passed_over(tmp_path):
    (tmp_path / "mnist").mkdir()
    assert datasets.load_split("mnist", "test", tmp_path).labels.shape == (10_000,)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"existing folder. Received: data_dir='.*missing'"):
        datasets.load("mnist", tmp_path / "missing")


def test_without_the_embedded_copy_the_cache_serves(monkeypatch, tmp_path, empty_keras_cache):
    monkeypatch.setattr(datasets, "EMBEDDED", tmp_path / "not_installed")
    np.savez(empty_keras_cache / "mnist.npz", **small_arrays())
    assert datasets.load_split("mnist", "test").labels.shape == (10,)


def test_an_out_of_distribution_set_may_have_a_test_split_only(tmp_path):
    arrays = small_arrays()
    np.savez(tmp_path / "partner.npz", x_test=arrays["x_test"], y_test=arrays["y_test"])
    assert datasets.load_split("partner", "test", tmp_path).images.shape == (10, 6, 5, 1)
    with pytest.raises(ValueError, match="x_train"):
        datasets.load("partner", tmp_path)


def test_colour_images_and_column_labels_as_in_keras_files(tmp_path):
    arrays = small_arrays()
    for split in ("train", "test"):
        arrays[f"x_{split}"] = np.stack([arrays[f"x_{split}"]] * 3, axis=-1)
        arrays[f"y_{split}"] = arrays[f"y_{split}"][:, None].astype(np.int32)
    np.savez(tmp_path / "colour.npz", **arrays)
    data = datasets.load("colour", tmp_path)
    assert data.train.images.shape == (36, 6, 5, 3)
    assert data.train.labels.shape == (36,)
    assert data.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x_train", np.zeros((40, 6, 5), np.float32)),
        ("x_train", np.zeros((40, 30), np.uint8)),
        ("x_train", np.zeros((0, 6, 5), np.uint8)),
        ("x_train", np.array([{}] * 40)),
        ("x_test", np.zeros((10, 7, 5), np.uint8)),
        ("y_train", np.zeros(39, np.uint8)),
        ("y_train", np.zeros(40)),
        ("y_train", np.zeros((40, 4), np.uint8)),
        ("y_train", np.full(40, -1)),
        ("y_train", np.array(0)),
        ("x_train", None),
        ("y_test", None),
    ],
    ids=str,
)
def test_a_foreign_file_is_refused_by_name(tmp_path, key, value):
    arrays = {**small_arrays(), key: value}
    np.savez(tmp_path / "foreign.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match="foreign"):
        datasets.load("foreign", tmp_path)


def test_a_label_above_the_known_classes_is_refused(tmp_path):
    np.savez(tmp_path / "mnist.npz", **{**small_arrays(), "y_train": np.full(40, 10, np.uint8)})
    with pytest.raises(ValueError, match="10 classes"):
        datasets.load("mnist", tmp_path)


def test_a_file_cut_short_anywhere_is_refused(tmp_path, folder):
    whole = (folder / "small.npz").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.npz"):
            datasets.load("cut", tmp_path)


def test_a_damaged_byte_is_noticed(tmp_path):
    np.savez_compressed(tmp_path / "bad.npz", **small_arrays())
    content = bytearray((tmp_path / "bad.npz").read_bytes())
    content[200] ^= 0xFF
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.npz"):
        datasets.load("bad", tmp_path)


def test_other_things_under_the_name_are_refused(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    (tmp_path / "text.npz").write_text("not found")
    for name in ("folder", "single", "text"):
        with pytest.raises(ValueError, match=rf"{name}\.npz"):
            datasets.load(name, tmp_path)


def test_where_nothing_is_found_the_message_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)kmnist\.npz.*data_dir") as caught:
        datasets.load("kmnist", tmp_path, download=False)
    assert str(tmp_path) in str(caught.value)


def test_a_name_that_nobody_knows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no_such_set"):
        datasets.load("no_such_set", tmp_path)


def test_without_a_network_the_message_says_what_to_do(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def no_network(self, **options):
        raise ConnectionError("name not resolved")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    with pytest.raises(OSError, match=r"(?s)kmnist\.npz.*data_dir.*name not resolved"):
        datasets.load("kmnist", tmp_path)


def test_a_set_that_tfds_prepared_is_read_without_the_network(tmp_path):
    write_tfds_set(tmp_path, small_arrays())
    data = datasets.load("tiny_set", tmp_path, validation=4, download=False)
    assert data.class_names == ("ant", "bee", "cat", "dog")
    assert data.train.images.shape == (36, 6, 5, 1)
    np.testing.assert_allclose(data.test.images[..., 0] * 255, small_arrays()["x_test"], rtol=1e-6)
    np.testing.assert_array_equal(data.test.labels, small_arrays()["y_test"])
    with pytest.raises(ValueError, match="test, train"):
        datasets.load_split("tiny_set", "validation", tmp_path, download=False)


def test_a_damaged_tfds_file_is_refused(tmp_path):
    write_tfds_set(tmp_path, small_arrays())
    (record,) = tmp_path.rglob("*test.tfrecord*")
    record.write_bytes(record.read_bytes()[:-9])
    with pytest.raises(ValueError, match="tiny_set"):
        datasets.load_split("tiny_set", "test", tmp_path, download=False)


def test_tfds_leaves_tf_keras_alone(tmp_path):
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    write_tfds_set(tmp_path, small_arrays())
    datasets.load("tiny_set", tmp_path, download=False)
    import tensorflow as tf

    assert os.environ.get("TF_USE_LEGACY_KERAS") == before
    assert tf.keras.__version__.startswith("3.")


def write_tfds_set(data_dir, arrays):
    """Store arrays the way TFDS prepares a set; its reader then needs no builder code."""
    import tensorflow_datasets as tfds

    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_set",
        version="1.0.0",
        data_dir=data_dir,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(6, 5, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["ant", "bee", "cat", "dog"]),
                "id": tfds.features.Text(),
            }
        ),
        split_datasets={
            split: [
                (i, {"image": image[..., None], "label": int(label), "id": str(i)})
                for i, (image, label) in enumerate(zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True))
            ]
            for split in ("train", "test")
        },
        disable_shuffling=True,
    )


@needs_data_dir
@pytest.mark.slow
def test_cifar10_from_a_folder():
    test = datasets.load_split("cifar10", "test", DATA_DIR, download=False)
    assert test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert (test.images.min(), test.images.max()) == (0, 1)
    np.testing.assert_allclose(test.images.mean(axis=(0, 1, 2)), [0.4942, 0.4851, 0.4504], atol=1e-3)


@needs_data_dir
@pytest.mark.parametrize(("name", "classes"), [("cifar100", 100), ("fashion_mnist", 10)])
@pytest.mark.slow
def test_out_of_distribution_partners_from_a_folder(name, classes):
    test = datasets.load_split(name, "test", DATA_DIR, download=False)
    assert np.bincount(test.labels).tolist() == [10_000 // classes] * classes


@needs_data_dir
@pytest.mark.slow
def test_cifar10_is_split_like_any_other():
    data = datasets.load("cifar10", DATA_DIR, download=False)
    assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [
        45_000,
        5_000,
        10_000,
    ]
    assert np.bincount(data.validation.labels).tolist() == [500] * 10
    assert data.class_names[3] == "cat"
