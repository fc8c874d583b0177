"""Examples with labels, as safety sets and comparisons take them.

Shapes: ``N`` examples of any shape.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Dataset", "Split"]


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
