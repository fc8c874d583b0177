"""The networks, what they are trained on, and what is out of distribution for them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.datasets import make_moons
from sklearn.model_selection import train_test_split

from lab import datasets, models

__all__ = ["Task", "load", "two_moons"]


class Task(NamedTuple):
    """A network and its data.

    Attributes:
        name: of the stages in the work folder.
        build: function ``seed -> Sequential or functional Keras model of logits``, with initial weights of that seed.
            The channels of its layers must be such that `scc_tf.remove_channels` can remove them.
        data: `scc_tf.datasets.Dataset`.
        ood_images: ``(M, ...)``, or None.

    Example:
        >>> task = Task("moons", lambda seed: models.moons_mlp(seed=seed), two_moons())
    """

    name: str
    build: Callable
    data: datasets.Dataset
    ood_images: np.ndarray | None = None


def load(config):
    """The `Task` of the network that a configuration names; pixels are in [-1, 1].

    Args:
        config: `lab.lottery.Config`.
    """

    def build(seed):
        return getattr(models, config.model)(seed=seed)

    return Task(config.model, build, *_data(config))


def _data(config):
    if config.model == "moons_mlp":
        return two_moons(), None
    data = datasets.load("cifar10", config.data_dir or None)
    data = data._replace(**{name: _centred(getattr(data, name)) for name in ("train", "validation", "test")})
    if not config.ood:
        return data, None
    return data, _centred(datasets.load_split(config.ood, "test", config.data_dir or None)).images


def two_moons(count=1000, noise=0.2, seed=42):
    """Two interleaving half circles with noise, 70 % for training and 15 % each for validation and test.

    The classes have the same share in every split, and every seed of the pipeline the same splits.

    Args:
        count: points in all.
        noise: standard deviation.
        seed: of noise and splits.

    Returns:
        `scc_tf.datasets.Dataset`; its images are points ``(N, 2)``.

    Source: ``sklearn.datasets.make_moons``.

    Example:
        >>> [len(split.labels) for split in two_moons()[1:4]]
        [700, 150, 150]
    """
    points, labels = make_moons(count, noise=noise, random_state=seed)
    points, labels = points.astype(np.float32), labels.astype(np.int64)
    options = {"random_state": seed, "test_size": 0.5}
    train, rest, y_train, y_rest = train_test_split(points, labels, stratify=labels, **{**options, "test_size": 0.3})
    validation, test, y_validation, y_test = train_test_split(rest, y_rest, stratify=y_rest, **options)
    pairs = ((train, y_train), (validation, y_validation), (test, y_test))
    return datasets.Dataset("moons", *(datasets.Split(*pair) for pair in pairs), ("upper", "lower"))


def _centred(split):
    return datasets.Split(2 * split.images - 1, split.labels)
