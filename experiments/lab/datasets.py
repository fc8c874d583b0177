"""Image data sets as plain arrays: MNIST from the repository, others from a folder, a cache or the network.

`load` gives a data set ready for an experiment, with a validation split held out of the training images, so
that nothing has to be tuned on the test images; `load_split` gives one split as published, for example the
test images of a set that serves as out-of-distribution partner. A data set is looked for in this order:

1. ``<data_dir>/<name>.npz`` in the layout of Keras (``x_train``, ``y_train``, ``x_test``, ``y_test``);
2. the folder ``<data_dir>/<name>``, as prepared by TensorFlow Datasets;
3. for ``mnist``, the copy in ``experiments/data``;
4. ``<name>.npz`` in Keras's cache, ``~/.keras/datasets`` or ``$KERAS_HOME/datasets``;
5. without a ``data_dir``, the folder ``~/tensorflow_datasets/<name>``;
6. TensorFlow Datasets, downloaded to ``data_dir`` or ``~/tensorflow_datasets``.

Shapes: ``N`` images of ``H`` x ``W`` pixels with ``C`` channels.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scc_tf.arguments import check_count, check_number, received
from scc_tf.arrays_file import read_arrays_file
from scc_tf.datasets import Dataset, Split

__all__ = ["Dataset", "Split", "load", "load_split", "stratified_holdout"]

EMBEDDED = Path(__file__).resolve().parents[1] / "data"

# Where TFDS reads a set from files alone, without its builder's code, the names may have been left out.
CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    validation: float | int = 0.1,
    seed: int = 0,
    download: bool = True,
) -> Dataset:
    """Load a data set and hold out a part of its training images, class by class, for validation.

    Args:
        name: ``"mnist"``, ``"cifar10"``, or any image classification set of TensorFlow Datasets that has a
            train and a test split.
        data_dir: existing folder that holds ``<name>.npz`` or the TFDS folder ``<name>``; it comes before
            every other place.
        validation: what to hold out of the training images: a fraction in [0, 1) if float, a number of
            images if int. The default leaves 54,000 for MNIST and 45,000 for CIFAR-10.
        seed: of the choice of the held-out images; the same seed gives the same split.
        download: whether the network may be used where no copy is found.

    Returns:
        The three splits and the names of the classes.

    Raises:
        ValueError: if ``data_dir`` is no folder, the set is found nowhere, a file is damaged or not an image
            set, or ``validation`` leaves nothing to train on.
        OSError: if it can only be downloaded, and that fails.
    """
    seed = check_count("seed", seed, least=0)
    check_number("validation", validation, 0)
    train = _read(name, "train", data_dir, download)
    test = _read(name, "test", data_dir, download)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"The train and test images of data set {name!r} differ in shape. "
            f"Received: {train.images.shape[1:]} and {test.images.shape[1:]}"
        )
    class_names = _class_names(name, train, test)
    total = len(train.labels)
    fraction = isinstance(validation, float | np.floating)
    count = round(validation * total) if fraction else int(validation)
    if not 0 <= count < total:
        raise ValueError(
            f"validation must be a fraction in [0, 1) or a number of images below {total}. "
            f"Received: validation={validation!r}"
        )
    held_out = stratified_holdout(train.labels, count, seed)
    kept = np.delete(np.arange(total), held_out)
    return Dataset(
        name=name,
        train=_to_split(train.images[kept], train.labels[kept]),
        validation=_to_split(train.images[held_out], train.labels[held_out]),
        test=_to_split(test.images, test.labels),
        class_names=class_names,
    )


def load_split(name: str, split: str, data_dir: str | Path | None = None, *, download: bool = True) -> Split:
    """Load one split as published, for sets of which no other is needed or at hand.

    Args:
        name: see `load`.
        split: ``"train"``, ``"test"``, or what else the set has.
        data_dir: see `load`.
        download: see `load`.

    Returns:
        All images and labels of the split.

    Raises:
        ValueError: if ``data_dir`` is no folder, the split is found nowhere, or a file is damaged or not an
            image set.
        OSError: if it can only be downloaded, and that fails.
    """
    raw = _read(name, split, data_dir, download)
    return _to_split(raw.images, raw.labels)


def stratified_holdout(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose ``count`` examples at random so that each class gives its share.

    Class ``c`` with ``n_c`` of the ``N`` examples gives ``count * n_c / N``, rounded down or up such that
    the total is exact; the largest remainders are rounded up.

    Args:
        labels: int ``(N,)``.
        count: how many to choose, in ``[0, N]``.
        seed: of the choice.

    Returns:
        Indices int64 ``(count,)`` into ``labels``, ascending.

    Raises:
        ValueError: if ``count`` is not in ``[0, N]``.
    """
    labels = np.asarray(labels)
    if not 0 <= count <= len(labels):
        raise ValueError(f"count must be in [0, {len(labels)}]. Received: count={count}")
    if count == 0:
        return np.empty(0, np.int64)
    _, class_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    taken, remainder = np.divmod(count * sizes, len(labels))
    taken[np.argsort(-remainder, kind="stable")[: count - taken.sum()]] += 1
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(class_of == c))[:n] for c, n in enumerate(taken)]
    return np.sort(np.concatenate(chosen))


class _Raw(NamedTuple):
    images: np.ndarray  # uint8 (N, H, W, C)
    labels: np.ndarray  # int64 (N,)
    class_names: tuple[str, ...] | None  # where the source tells them
    origin: str  # the file or folder, for messages


def _to_split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(np.divide(images, np.float32(255), dtype=np.float32), labels)


def _class_names(name: str, *splits: _Raw) -> tuple[str, ...]:
    """The names by table, else as the source tells them, else numbers up to the highest label."""
    highest = max(int(split.labels.max()) for split in splits)
    names = CLASS_NAMES.get(name) or splits[0].class_names or tuple(map(str, range(highest + 1)))
    if highest >= len(names):
        raise ValueError(f"Data set {name!r} has {len(names)} classes. Received: label {highest} in {splits[0].origin}")
    return names


def _read(name: str, split: str, data_dir: str | Path | None, download: bool) -> _Raw:
    for argument, text in (("name", name), ("split", split)):
        if not isinstance(text, str) or not re.fullmatch(r"[\w./:+-]+", text):
            raise ValueError(f"Expected {argument} to be a name without spaces. {received(argument, text)}")
    given = Path(data_dir).expanduser() if isinstance(data_dir, str | os.PathLike) else data_dir
    if data_dir is not None and not (isinstance(given, Path) and given.is_dir()):
        raise ValueError(f"Expected data_dir to be an existing folder. {received('data_dir', str(data_dir))}")
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    folders = (given, EMBEDDED if name == "mnist" else None, cache)
    candidates = [folder / f"{name}.npz" for folder in folders if folder]
    if given and not candidates[0].exists() and any((given / name).rglob("dataset_info.json")):
        return _read_tfds(name, split, data_dir, download, candidates[:1])
    for path in candidates:
        if path.exists():
            return _read_npz(path, split)
    return _read_tfds(name, split, data_dir, download, candidates)


def _read_npz(path: Path, split: str) -> _Raw:
    """Read ``x_<split>`` and ``y_<split>``; whatever is wrong with the file ends in one ValueError."""
    names = f"x_{split}", f"y_{split}"
    try:
        images, labels = read_arrays_file(path, dict.fromkeys(names, "fiub")).values()
    except (ValueError, OSError) as error:
        raise ValueError(f"Not a readable data set with arrays {' and '.join(names)}: {path} ({error})") from error
    return _check(images, labels, None, str(path))


def _read_tfds(name: str, split: str, data_dir: str | Path | None, download: bool, candidates: list[Path]) -> _Raw:
    import tensorflow as tf  # here, because most uses of this module need neither
    import tensorflow_datasets as tfds

    folder = str(Path(data_dir or "~/tensorflow_datasets").expanduser())
    searched = f"looked for {', '.join(map(str, candidates))} and a TFDS folder {name!r} in {folder}"
    try:
        builder = tfds.builder(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(f"Data set {name!r} was not found, and TFDS does not know the name: {searched}") from error
    if not builder.is_prepared():
        if not download:
            raise ValueError(
                f"Data set {name!r} was not found: {searched}. "
                "Name the folder that holds it in data_dir, or allow download."
            )
        try:
            builder.download_and_prepare()
        except Exception as error:  # no network, a moved file, a wrong checksum: all of unrelated types
            raise OSError(
                f"Data set {name!r} was not found and could not be downloaded: {searched}. Fetch it on a "
                f"machine with a network and name the folder that holds it in data_dir. ({error})"
            ) from error
    if split not in builder.info.splits:
        raise ValueError(
            f"Data set {name!r} in {folder} has the splits {', '.join(sorted(builder.info.splits))}. "
            f"Received: split={split!r}"
        )
    if not {"image", "label"} <= set(builder.info.features):
        raise ValueError(f"Expected the features 'image' and 'label'. Received: {list(builder.info.features)}")
    try:
        # a set's other features (ids, file names, segmentation masks) need not be decoded
        wanted = tfds.decode.PartialDecoding({"image": True, "label": True})
        arrays = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, decoders=wanted))
    except (tf.errors.OpError, OSError) as error:
        raise ValueError(f"Cannot read split {split!r} of data set {name!r} in {folder}: {error}") from error
    names = tuple(builder.info.features["label"].names)
    return _check(arrays["image"], arrays["label"], names, f"{folder} ({name}, {split})")


def _check(images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...] | None, origin: str) -> _Raw:
    """Bring images to (N, H, W, C) and labels to int64 (N,), or say what is wrong with them."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if labels.ndim == 2 and labels.shape[1] == 1:  # as in Keras's CIFAR files
        labels = labels[:, 0]
    problem = None
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        problem = "images must be uint8 (N, H, W) or (N, H, W, C)"
    elif not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        problem = "labels must be integers, one per image"
    elif labels.min() < 0:
        problem = "labels must not be negative"
    if problem:
        raise ValueError(
            f"Not an image data set: {origin}: {problem}. Received: images {images.dtype} {images.shape}, "
            f"labels {labels.dtype} {labels.shape}"
        )
    return _Raw(images, labels.astype(np.int64), class_names, origin)
