"""Cluster numbers as signed numbers, which is what the sign and the magnitude of a mixed model are made for.

Shared weights are indices: 0 is pruned, ``i`` from 1 to ``k`` is a cluster, by value. Zero lies somewhere between two
clusters, so their numbers from there are small for small weights, and of the sign of the weight.
"""

import numpy as np

__all__ = ["centered", "uncentered"]


def centered(indices, center):
    """Number the clusters from a center: ``i > center`` becomes ``i - center``, other ``i > 0`` ``i - center - 1``.

    Args:
        indices: int array, from 0 to ``k``; 0 stays.
        center: int, the last cluster that becomes negative: that of the largest weight below 0, or the median.

    Returns:
        int32 array of the same shape.

    Example:
        >>> centered(np.array([0, 1, 2, 3, 4]), 2).tolist()
        [0, -2, -1, 1, 2]
    """
    indices = np.asarray(indices, np.int32)
    return np.where(indices, indices - np.int32(center) - (indices <= center), 0).astype(np.int32)


def uncentered(codes, center, clusters):
    """Undo `centered`.

    Args:
        codes: int array.
        center: as for `centered`.
        clusters: ``k``.

    Returns:
        int32 array of indices from 0 to ``k``.

    Raises:
        ValueError: if a code is of no cluster.

    Example:
        >>> uncentered(np.array([0, -2, -1, 1, 2]), 2, 4).tolist()
        [0, 1, 2, 3, 4]
    """
    codes = np.asarray(codes, np.int64)
    indices = np.where(codes, codes + center + (codes < 0), 0)
    if ((codes != 0) & ((indices < 1) | (indices > clusters))).any():
        raise ValueError(
            f"Expected clusters from 1 to {clusters}. Received: {indices[codes != 0].min()} to {indices.max()}"
        )
    return indices.astype(np.int32)
