"""What an edge costs in a coded kernel: the bits of its position and of its weight."""

import numpy as np

__all__ = ["edge_bits"]


def edge_bits(kept, clusters):
    """Estimate what every edge of a kernel takes in the file, were it to stay.

    ``-log2(min(r_i c_j / d, 1)) - log2(f_k)`` for the edge from input ``i`` to channel ``j`` with a weight of cluster
    ``k``: ``r``, ``c`` and ``d`` are the densities of its row, its column and the kernel, ``f`` the share of its
    cluster among the edges. So an edge is cheap where many others are, as it is for the coder
    (`scc_tf.coding.pruned`), which predicts positions from the same counts, and neighbours besides. Half an edge is
    added to every count: what is empty so far is dear, not forbidden.

    Args:
        kept: bool array ``(…, channels)``: the edges that are expected to stay, such as the largest ones. All axes but
            the last are the inputs.
        clusters: int array of that shape, from 0: which shared weight an edge has, or would have.

    Returns:
        int64 array of that shape, whole bits, at least 1.

    Raises:
        ValueError: if the shapes differ, are empty, or ``clusters`` are no integers from 0.

    Source: Shannon 1948, "A mathematical theory of communication" (the length of a code word); the density of rows
        times columns is the prediction of independence in a contingency table (Pearson 1900).

    Example:
        >>> kept = np.array([[True, True, True], [False, False, True], [False, False, False]])
        >>> edge_bits(kept, np.zeros((3, 3), int)).tolist()
        [[1, 1, 1], [2, 2, 1], [3, 3, 3]]
    """
    kept, clusters = np.asarray(kept, bool), np.asarray(clusters)
    if kept.shape != clusters.shape or not kept.size or clusters.dtype.kind not in "iu" or clusters.min() < 0:
        raise ValueError(
            "Expected edges and clusters from 0 of one shape, not empty. "
            f"Received: kept.shape={kept.shape}, clusters.shape={clusters.shape}, dtype={clusters.dtype}"
        )
    edges, members = (array.reshape(-1, kept.shape[-1]) for array in (kept, clusters.astype(np.int64)))
    rows, columns = ((edges.sum(axis=axis) + 0.5) / (edges.shape[axis] + 1) for axis in (1, 0))
    density = (edges.sum() + 0.5) / (edges.size + 1)
    position = -np.log2(np.minimum(np.outer(rows, columns) / density, 1))
    counts = np.bincount(members[edges], minlength=members.max() + 1) + 0.5
    weight = -np.log2(counts / counts.sum())[members]
    return np.maximum(np.rint(position + weight), 1).astype(np.int64).reshape(kept.shape)
