"""Which neurons or filters of a layer stay, on plain arrays.

A mask is a bool array ``(channels,)``; True stays. ``ratio`` is the fraction that goes, in [0, 1]. Every layer loses
the same ratio of its own channels, so no layer is cut in two.
"""

import math

import numpy as np

__all__ = ["kept_count", "largest_neurons", "neuron_scores"]

_ROUNDING = 1e-9  # 0.29 * 100 is 28.999999999999996


def neuron_scores(kernel):
    """The L1 norm of every channel's incoming weights; the bias does not count.

    Args:
        kernel: float array, its channels last.

    Returns:
        float64 ``(channels,)``.

    Raises:
        ValueError: if the kernel has less than two axes, or a weight is NaN.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets" (arXiv 1608.08710), section 3.

    Example:
        >>> neuron_scores(np.array([[1.0, -2.0], [0.5, 2.0]])).tolist()
        [1.5, 4.0]
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim < 2 or np.isnan(kernel).any():
        raise ValueError(f"Expected a kernel with two axes or more, without NaN. Received: shape={kernel.shape} or NaN")
    return np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 1)))


def kept_count(channels, ratio):
    """How many of a layer's channels stay: ``max(channels - floor(ratio * channels), 1)``.

    A product that falls short of a whole number by less than 1e-9, as 0.29 * 100 does in binary, counts as that number.

    Raises:
        ValueError: if ``channels`` is below 1 or ``ratio`` not in [0, 1].

    Example:
        >>> [kept_count(30, ratio) for ratio in (0, 0.1, 0.15, 0.9, 1)]
        [30, 27, 26, 3, 1]
    """
    if channels < 1 or not 0 <= ratio <= 1:
        raise ValueError(f"Expected channels from 1 and a ratio in [0, 1]. Received: {channels=}, {ratio=}")
    return max(channels - math.floor(ratio * channels + _ROUNDING), 1)


def largest_neurons(scores, count):
    """Keep the ``count`` channels with the largest scores; of equal ones the first.

    Scores of ``rng.permutation(channels)`` keep any as likely as others: the control of a score.

    Raises:
        ValueError: if ``scores`` is not a vector or has NaN, or ``count`` is not from 1 to its length.

    Example:
        >>> largest_neurons([1.5, 4.0, 0.5, 1.5], 2).tolist()
        [True, True, False, False]
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or np.isnan(scores).any() or not 1 <= count <= scores.size:
        raise ValueError(
            "Expected a vector of scores without NaN, and a count from 1 to its length. "
            f"Received: scores.shape={scores.shape} or NaN, {count=}"
        )
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores, kind="stable")[:count]] = True
    return mask
