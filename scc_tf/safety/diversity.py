"""Examples that differ from each other: k-means over what the last convolution sees.

Shapes: ``N`` examples, ``D`` numbers per embedding.
"""

import keras
import numpy as np

__all__ = ["cluster", "equal_draw", "pool_features"]

_MAX_DIMS = 1024  # 54,000 embeddings of this length take 220 MB; PCA and k-means take seconds


def pool_features(features: np.ndarray, max_dims: int = _MAX_DIMS) -> np.ndarray:
    """Flatten the features of a convolution, after averaging 2x2 blocks until they are few enough.

    Args:
        features: float ``(N, h, w, C)``; of a signal ``(N, h, C)``, of a dense layer ``(N, C)``.
        max_dims: stop averaging once ``h * w * C`` is at most this, or ``h = w = 1`` (global pooling).

    Returns:
        float32 ``(N, D)``.
    """
    features = np.asarray(features, np.float32)
    while np.prod(features.shape[1:]) > max_dims and max(features.shape[1:-1], default=1) > 1:
        features = keras.ops.average_pool(features, 2, 2, padding="same", data_format="channels_last")
    return np.asarray(features).reshape(len(features), -1)


def cluster(embeddings: np.ndarray, n_clusters: int = 10, n_components: int = 32, seed: int = 0) -> np.ndarray:
    """Group embeddings: PCA, then k-means, both over the whole set.

    Args:
        embeddings: float ``(N, D)``.
        n_clusters: number of groups; no more than ``N`` are made.
        n_components: principal components to keep; all, where there are no more.
        seed: of PCA's random projections and k-means' first centres.

    Returns:
        int64 ``(N,)``, cluster ids in ``[0, n_clusters)``.

    Raises:
        ValueError: if the embeddings are not a finite, non-empty matrix, or a number is not positive.
    """
    from sklearn.cluster import KMeans  # imported late: `import scc_tf` stays cheap
    from sklearn.decomposition import PCA

    points = np.asarray(embeddings)
    if points.ndim != 2 or points.size == 0 or not np.isfinite(points).all():
        raise ValueError(f"Expected finite embeddings (N, D), not empty. Received: shape={points.shape}")
    if n_clusters < 1 or n_components < 1:
        raise ValueError(
            "Expected at least one cluster and one component. "
            f"Received: n_clusters={n_clusters}, n_components={n_components}"
        )
    if n_components < min(points.shape):
        with np.errstate(invalid="ignore"):  # points that are all alike: 0 / 0 in a ratio that nobody reads
            points = PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(points)
    points = points.astype(np.float64)
    n_clusters = min(n_clusters, len(np.unique(points, axis=0)))  # k-means warns of coinciding centres
    return KMeans(n_clusters, n_init=4, random_state=seed).fit_predict(points).astype(np.int64)


def equal_draw(clusters: np.ndarray, count: int, seed: int = 0, taken: np.ndarray | None = None) -> np.ndarray:
    """Draw the same number of members from every cluster, at random.

    A cluster with too few members gives all it has and hands the rest of its share on, in equal parts, to the
    others. Shares differ by at most one where the count does not divide evenly.

    Args:
        clusters: int ``(N,)``, the cluster of each example.
        count: examples to draw.
        seed: of the draw.
        taken: int, indices that must not be drawn.

    Returns:
        int64 ``(count,)``, indices without repeats; the clusters take turns, so any first part is diverse too.

    Raises:
        ValueError: if fewer than ``count`` examples are left, or ``count`` is negative.

    Source: the founding safety set, arXiv 2505.00350, which promises equal numbers per cluster of the set. Members
    are drawn at random, for those nearest to a centre are all alike.
    """
    clusters = np.asarray(clusters)
    free = np.setdiff1d(np.arange(len(clusters)), [] if taken is None else taken)
    if not 0 <= count <= len(free):
        raise ValueError(f"Expected a count between 0 and the {len(free)} examples left. Received: count={count}")
    rng = np.random.default_rng(seed)
    free = rng.permutation(free)
    turn = np.empty(len(free), np.int64)  # the how-manieth of its cluster each one is
    for own in np.unique(clusters[free]):
        members = clusters[free] == own
        turn[members] = np.arange(members.sum())
    # By turns, and within a turn in random order, so that no cluster is favoured in the last, incomplete one.
    return free[np.argsort(turn, kind="stable")][:count].astype(np.int64)
