"""What makes an example worth keeping: an uncertain answer, or to differ from the others. On arrays.

Shapes: ``N`` examples, ``K`` classes, ``D`` numbers per embedding.
"""

import keras
import numpy as np

__all__ = ["class_probabilities", "cluster", "equal_draw", "margin", "pool_features"]

_MAX_DIMS = 1024  # 54,000 embeddings of this length take 220 MB; PCA and k-means take seconds


def class_probabilities(outputs):
    """Probabilities ``(N, K)`` from what a classifier returned: rows that sum to 1 are some already, others logits."""
    outputs = np.asarray(outputs)
    outputs = outputs.astype(np.result_type(outputs, np.float32), copy=False)
    if (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1.0, rtol=0, atol=1e-3):
        return outputs
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def margin(probabilities):
    """Gap between the two most probable classes, ``p_first - p_second``, in [0, 1]: float ``(N,)``; 0 is a tie.

    Source: Scheffer, Decomain and Wrobel 2001, "Active Hidden Markov Models for Information Extraction".

    Example:
        >>> [round(float(gap), 2) for gap in margin([[0.5, 0.4, 0.1], [0.0, 0.1, 0.9]])]
        [0.1, 0.8]
    """
    top_two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return top_two[:, 1] - top_two[:, 0]


def pool_features(features, max_dims=_MAX_DIMS):
    """Features ``(N, h, w, C)``, ``(N, h, C)`` or ``(N, C)`` as ``(N, D)``, float32.

    2x2 blocks are averaged until there are at most ``max_dims`` numbers, or ``h = w = 1``.
    """
    features = np.asarray(features, np.float32)
    while np.prod(features.shape[1:]) > max_dims and max(features.shape[1:-1], default=1) > 1:
        features = keras.ops.average_pool(features, 2, 2, padding="same", data_format="channels_last")
    return np.asarray(features).reshape(len(features), -1)


def cluster(embeddings, n_clusters=10, n_components=32, seed=0):
    """Group finite embeddings ``(N, D)`` by PCA, then k-means; int64 ``(N,)``, fewer groups where fewer differ."""
    from sklearn.cluster import KMeans  # imported late: `import scc_tf` stays cheap
    from sklearn.decomposition import PCA

    points = np.asarray(embeddings)
    if n_components < min(points.shape):
        with np.errstate(invalid="ignore"):  # points that are all alike: 0 / 0 in a ratio that nobody reads
            points = PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(points)
    points = points.astype(np.float64)
    n_clusters = min(n_clusters, len(np.unique(points, axis=0)))  # k-means warns of coinciding centres
    return KMeans(n_clusters, n_init=4, random_state=seed).fit_predict(points).astype(np.int64)


def equal_draw(clusters, count, seed=0, taken=()):
    """Draw equally many members of every cluster, at random, but none of ``taken``: int64 ``(count,)``.

    A cluster with too few members gives all it has; the others share the rest. The clusters take turns, so any first
    part is diverse too. Members are drawn at random, for those nearest to a centre are all alike.

    Source: the founding safety set, arXiv 2505.00350, which promises equal numbers per cluster of the set.
    """
    rng = np.random.default_rng(seed)
    clusters = np.asarray(clusters)
    free = rng.permutation(np.setdiff1d(np.arange(len(clusters)), taken))
    turn = np.empty(len(free), np.int64)  # the how-manieth of its cluster each one is
    for own in np.unique(clusters[free]):
        members = clusters[free] == own
        turn[members] = np.arange(members.sum())
    # By turns, and within a turn in random order, so that no cluster is favoured in the last, incomplete one.
    return free[np.argsort(turn, kind="stable")][:count].astype(np.int64)
