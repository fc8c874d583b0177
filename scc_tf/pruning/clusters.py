"""Which filters of a layer are alike, and what each group of them merges into: k-means on plain arrays.

A filter is a row of ``points`` ``(C, D)``: what the channel multiplies its inputs by, flattened, and its bias if it has
one. Where the filters of a cluster are equal, one of them and the *sum* of what reads them compute the same.
"""

import warnings

import numpy as np
from scipy.cluster import hierarchy

from scc_tf.arguments import check_array, check_count, received

__all__ = ["first_members", "fit_scales", "group_filters", "merge_members", "sum_readers"]

_LEAST_WEIGHT = 1e-12  # of the largest one
_RANDOM_STARTS = 4


def group_filters(points, count, weights=None, up_to_scale=False):
    """Group filters by k-means: the best of several starts, one of them the clusters of Ward's method.

    With few filters that differ in many ways, random starts end in many local minima, and Ward's often begins in a
    better place. The random starts are seeded: the answer is always the same.

    Args:
        points: float ``(C, D)``.
        count: clusters ``K``, from 1 to ``C``; fewer where fewer filters differ, while ``C`` leaves each on its own.
        weights: float ``(C,)``, how much a filter counts; None is the same for all. Filters of weight 0 go where they
            are nearest, and move no centre.
        up_to_scale: whether filters count as alike when one is a positive multiple of the other. What is clustered then
            are directions, each with the weight of its squared length.

    Returns:
        int64 ``(C,)``, the cluster of every filter, numbered in the order of their first members.

    Raises:
        ValueError: if the points are no finite, non-empty matrix, the count is out of range, or the weights are not
            finite, not of that length, or negative.

    Source: Lloyd 1982, "Least Squares Quantization in PCM" (scikit-learn); Ward 1963, "Hierarchical Grouping to
        Optimize an Objective Function" (SciPy).

    Example:
        >>> group_filters([[1.0, 0.0], [0.0, 2.0], [1.1, 0.0], [0.0, 2.1]], 2).tolist()
        [0, 1, 0, 1]
    """
    from sklearn.cluster import KMeans  # imported late: `import scc_tf` stays cheap
    from sklearn.exceptions import ConvergenceWarning

    points, weights = _checked(points, weights)
    check_count("count", count, 1, len(points))
    if count == len(points):
        return np.arange(count)
    if up_to_scale:
        lengths = np.linalg.norm(points, axis=1)
        points = points / np.where(lengths > 0, lengths, 1)[:, None]
        weights = weights * lengths**2
    weights = weights / weights.max() if weights.any() else np.ones(len(points))
    weights = np.maximum(weights, _LEAST_WEIGHT)  # a centre needs some weight
    count = min(count, len(np.unique(points, axis=0)))
    start = hierarchy.cut_tree(hierarchy.ward(points), count).ravel()
    centres = merge_members(points, start, weights=weights)
    starts = (KMeans(count, init=centres, n_init=1), KMeans(count, n_init=_RANDOM_STARTS, random_state=0))
    with warnings.catch_warnings():  # of filters that differ by rounding alone
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = min((k.fit(points, sample_weight=weights) for k in starts), key=lambda k: k.inertia_).labels_
    _, first, numbered = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbered]


def _checked(points, weights):
    points = check_array("points", points).astype(np.float64)
    if points.ndim != 2 or points.size == 0:
        raise ValueError(f"Expected points (C, D), not empty. {received('points', points)}")
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (len(points),) or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"Expected {len(points)} finite weights, none negative. Received: weights={weights}")
    return points, weights


def first_members(labels):
    """The first filter of every cluster, bool ``(C,)``: the channels that stay.

    Example:
        >>> first_members([0, 1, 0, 2, 1]).tolist()
        [True, True, False, True, False]
    """
    labels = np.asarray(labels)
    first = np.zeros(len(labels), bool)
    first[np.unique(labels, return_index=True)[1]] = True
    return first


def fit_scales(points, labels, weights=None):
    """How long each filter is along the direction of its cluster: ``a_c >= 0`` with ``points_c ~ a_c * merged``.

    The direction is that of the weighted mean; the projection of a filter on it is its scale, and 0 where they point
    apart. They are relative to the weighted mean of the cluster's scales, so alike filters have scale 1.

    Args:
        points: float ``(C, D)``.
        labels: int ``(C,)``, see `group_filters`.
        weights: float ``(C,)``, see `group_filters`.

    Returns:
        float64 ``(C,)``; 1 for all members of a cluster whose filters cancel out.

    Raises:
        ValueError: as `group_filters`.

    Example:
        >>> fit_scales([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]], [0, 0, 1]).tolist()
        [0.5, 1.5, 1.0]
    """
    points, weights = _checked(points, weights)
    means = merge_members(points, labels, weights=weights)[labels]
    lengths = (means**2).sum(axis=1)
    scales = np.maximum((points * means).sum(axis=1) / np.where(lengths > 0, lengths, 1), 0)
    usual = merge_members(scales, labels, weights=weights)[labels]
    return np.where((lengths > 0) & (usual > 0), scales / np.where(usual > 0, usual, 1), 1.0)


def merge_members(values, labels, scales=None, weights=None):
    """One value per cluster that its members are multiples of, by least squares: ``sum(w a x) / sum(w a^2)``.

    With scales of 1 that is the weighted mean.

    Args:
        values: float ``(C, …)``.
        labels: int ``(C,)``, every number from 0 to ``K - 1`` among them.
        scales: float ``(C,)``, ``a``; None is 1.
        weights: float ``(C,)``, ``w``, see `group_filters`; a cluster whose members weigh nothing takes them alike.

    Returns:
        float64 ``(K, …)``.

    Example:
        >>> merge_members([1.0, 3.0, 7.0], [0, 0, 1]).tolist()
        [2.0, 7.0]
    """
    values, labels = np.asarray(values, np.float64), np.asarray(labels)
    scales = np.ones(len(labels)) if scales is None else np.asarray(scales, np.float64)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    weights = np.where(np.bincount(labels, weights * scales**2)[labels] > 0, weights, 1.0)
    merged = sum_readers(values, labels, weights * scales)
    return merged / np.bincount(labels, weights * scales**2).reshape(-1, *[1] * (values.ndim - 1))


def sum_readers(slices, labels, scales=None):
    """What reads one merged channel in place of a cluster's members: the sum of what reads these, times their scales.

    Args:
        slices: float ``(C, …)``: of every channel, the weights that it is multiplied by.
        labels: int ``(C,)``, every number from 0 to ``K - 1`` among them.
        scales: float ``(C,)``; None is 1.

    Returns:
        float64 ``(K, …)``.

    Example:
        >>> sum_readers([1.0, 3.0, 7.0], [0, 0, 1]).tolist()
        [4.0, 7.0]
    """
    slices, labels = np.asarray(slices, np.float64), np.asarray(labels)
    if scales is not None:
        slices = slices * np.reshape(scales, (-1, *[1] * (slices.ndim - 1)))
    sums = np.zeros((labels.max() + 1, *slices.shape[1:]))
    np.add.at(sums, labels, slices)
    return sums
