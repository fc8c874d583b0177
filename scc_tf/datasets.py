"""Examples with labels, and how a part of them is held out.

Shapes: ``N`` examples of any shape.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Dataset", "Split", "stratified_holdout"]


class Split(NamedTuple):
    """Examples and their labels.

    Example:
        >>> split = Split(np.zeros((2, 28, 28, 1), np.float32), np.array([3, 7]))
    """

    images: np.ndarray  # (N, ...), as the model takes them
    labels: np.ndarray  # int64 (N,) in [0, num_classes)


class Dataset(NamedTuple):
    """A data set whose validation split was held out of its training examples; its test split is untouched.

    Example:
        >>> split = Split(np.zeros((2, 4), np.float32), np.array([0, 1]))
        >>> Dataset("toy", split, split, split, ("no", "yes")).num_classes
        2
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are below it."""
        return len(self.class_names)


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
