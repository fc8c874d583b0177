"""Weight sharing: the weights of a layer take few values, and each stores only which.

Shapes: ``n`` weights, ``k`` clusters.
"""

import numpy as np

from scc_tf.arguments import check_array, check_choice, check_count, received

__all__ = ["STARTS", "share_weights"]

STARTS = ("linear", "density", "forgy")
_ITERATIONS = 300  # at most; a step that changes no cluster is the last


def share_weights(values, clusters, start="linear", seed=0):
    """Group weights by k-means, so that the squared distances to their cluster's mean are small.

    ===========  ================================================================================================
    start        first centroids
    ===========  ================================================================================================
    ``linear``   evenly spaced from the smallest weight to the largest; the paper's best: large weights, which are
                 few and matter most, keep centroids of their own
    ``density``  evenly spaced on the cumulative distribution, at ``(i + 1/2) / k``
    ``forgy``    weights drawn at random
    ===========  ================================================================================================

    Args:
        values: float array of any shape, finite, not empty; taken as float32. Of a pruned layer, pass the surviving
            weights: a zero is a value like any other here.
        clusters: number of clusters, at least 1.
        start: one of the table.
        seed: of the draw of ``forgy``.

    Returns:
        ``(centroids, indices)``: centroids as float32 ``(k,)``, strictly ascending; indices as int32 of the shape of
        ``values``. A centroid is the mean of the values that have its index, an interval of all values. ``k`` is
        ``clusters``, or fewer where there are fewer different values or a cluster ends up without any.

    Raises:
        ValueError: if an argument is out of range, or a value is not finite.

    Source: Han, Mao & Dally 2016, "Deep Compression", sections 3.1 and 3.2 (arXiv 1510.00149).

    Example:
        >>> centroids, indices = share_weights([[-1.1, 0.5], [0.7, -0.9]], clusters=2)
        >>> centroids.round(3).tolist(), indices.tolist()
        ([-1.0, 0.6000000238418579], [[0, 1], [1, 0]])
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        values = check_array("values", values).astype(np.float32)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"Expected values to be finite, not empty. {received('values', values)}")
    check_count("clusters", clusters)
    check_choice("start", start, STARTS)
    flat = values.ravel().astype(np.float64)
    centroids, counts = np.unique(flat, return_counts=True)
    if centroids.size > clusters:
        centroids = _k_means(centroids, counts, _first_centroids(flat, clusters, start, seed))
    members = _nearest(flat, centroids)
    counts = np.bincount(members, minlength=centroids.size)
    means = np.bincount(members, flat, centroids.size)[counts > 0] / counts[counts > 0]
    return means.astype(np.float32), (np.cumsum(counts > 0) - 1)[members].reshape(values.shape).astype(np.int32)


def _first_centroids(flat, clusters, start, seed):
    if start == "linear":
        return np.linspace(flat.min(), flat.max(), clusters)
    if start == "density":
        return np.quantile(flat, (np.arange(clusters) + 0.5) / clusters)
    return np.random.default_rng(seed).choice(flat, clusters, replace=False)


def _k_means(points, weights, first):
    """Ascending centroids of different, ascending points ``(m,)`` that count ``weights`` times.

    Lloyd's algorithm on a line: a cluster is an interval. For every one without points, one of the others that have
    the largest squared errors is split.
    """
    sums, centroids, before = points * weights, first, None
    for _ in range(_ITERATIONS):
        centroids = np.unique(centroids)
        borders = np.searchsorted(points, (centroids[1:] + centroids[:-1]) / 2, side="right")
        starts = np.unique(np.concatenate([[0], borders[borders < points.size]]))
        if np.array_equal(starts, before):
            break
        counts, before = np.add.reduceat(weights, starts), starts
        centroids = np.add.reduceat(sums, starts) / counts
        if missing := first.size - centroids.size:
            distances = points - np.repeat(centroids, np.diff(starts, append=points.size))
            errors = np.add.reduceat(weights * np.square(distances), starts)
            halves = np.argsort(errors)[-missing:]
            step = np.sqrt(errors[halves] / counts[halves])
            centroids = np.concatenate(
                [np.delete(centroids, halves), centroids[halves] - step, centroids[halves] + step]
            )
    return np.unique(centroids)


def _nearest(flat, centroids):
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, flat)
