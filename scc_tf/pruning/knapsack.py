"""The edges that are worth their cost: what an edge costs in a file, 0-1 knapsacks, a network cut to a budget.

Shapes: ``n`` items.
"""

import math

import numpy as np

from scc_tf.arguments import check_choice

__all__ = ["edge_bits", "exact_knapsack", "fractional_bound", "greedy_knapsack", "reduce_layer"]

_LARGEST_CAPACITY = 1 << 24  # 128 MiB per table of best values


def edge_bits(kept, clusters):
    """Estimate what every edge of a kernel takes in the file, were it to stay.

    ``-log2(min(r_i c_j / d, 1)) - log2(f_k)`` for the edge from input ``i`` to channel ``j`` with a weight of cluster
    ``k``: ``r``, ``c`` and ``d`` are the densities of its row, its column and the kernel, ``f`` the share of its
    cluster among the edges. So an edge is cheap where many others are, as it is for the coder
    (`scc_tf.coding.kernels`), which predicts positions from the same counts, and neighbours besides. Half an edge is
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


def _checked_items(values, costs, budget):
    values, costs = np.asarray(values), np.asarray(costs)
    if values.ndim != 1 or values.shape != costs.shape or values.dtype.kind not in "fiub" or np.isnan(values).any():
        raise ValueError(
            "Expected values and costs (n,), without NaN. "
            f"Received: values.shape={values.shape}, costs.shape={costs.shape}, dtype={values.dtype}"
        )
    if costs.size and (costs.dtype.kind not in "iu" or costs.min() < 0 or costs.sum(dtype=np.float64) >= 2.0**53):
        raise ValueError(f"Expected whole costs from 0, with a sum below 2**53. Received: dtype={costs.dtype}")
    if not math.isfinite(budget) or budget < 0 or not np.isfinite(values).all():
        raise ValueError(f"Expected finite values and a budget from 0. Received: {budget=}")
    return values.astype(np.float64), costs.astype(np.int64), math.floor(budget)


def exact_knapsack(values, costs, budget):
    """Choose items of the largest total value within a budget: the 0-1 knapsack, by dynamic programming.

    Of the items of one cost ``w`` only the ``B // w`` most valuable can be chosen within the capacity ``B``; item by
    item, ``f(c) = max(f(c), f(c - w) + v)`` is the best value at capacity ``c``. Which items they are is found by
    halving the items, the capacity divided between both halves (Hirschberg), so that no table of choices is kept: time
    ``O(n B)`` for the ``n`` items that can be chosen, memory ``O(n + B)``.

    Args:
        values: float array ``(n,)``, finite. Items of no positive value are never chosen.
        costs: int array ``(n,)``, not negative, with a sum below 2^53.
        budget: number, not negative; fractions of a unit are of no use.

    Returns:
        ``(mask, value)``: bool array ``(n,)`` and a float. Exact up to the rounding of sums in float64.

    Raises:
        ValueError: if an argument is out of range, or the budget over the costs' common divisor is above 2^24.

    Source: Kellerer, Pferschy & Pisinger 2004, "Knapsack Problems", sections 2.3 and 3.3.

    Example:
        >>> mask, value = exact_knapsack([6.0, 10.0, 12.0], [1, 2, 3], 5)
        >>> mask.tolist(), value
        ([False, True, True], 22.0)
    """
    values, costs, budget = _checked_items(values, costs, budget)
    worth = (values > 0) & (costs <= budget)
    mask = worth & (costs == 0)
    items = np.flatnonzero(worth & (costs > 0))
    items = items[np.lexsort((-values[items], costs[items]))]
    unit = int(np.gcd.reduce(costs[items])) if items.size else 1
    costs, capacity = costs // unit, min(budget, int(costs[items].sum())) // unit
    if capacity > _LARGEST_CAPACITY:
        raise ValueError(f"Expected a budget of at most {_LARGEST_CAPACITY} units of {unit}. Received: {budget=}")
    place = np.arange(items.size) - np.searchsorted(costs[items], costs[items])  # among those of its cost
    _choose(items[place < capacity // costs[items]], values, costs, capacity, mask)
    return mask, float(values[mask].sum())


def _choose(items, values, costs, capacity, mask):
    if costs[items].sum() <= capacity:
        mask[items] = True
    elif items.size > 1:
        halves = items[: items.size // 2], items[items.size // 2 :]
        first, second = (_best(values[half], costs[half], capacity) for half in halves)
        left = int(np.argmax(first + second[::-1]))
        for half, part in zip(halves, (left, capacity - left), strict=True):
            _choose(half, values, costs, part, mask)


def _best(values, costs, capacity):
    """Best value at the capacities 0 to ``capacity``, float64."""
    best = np.zeros(capacity + 1)
    for value, cost in zip(values, costs, strict=True):
        best[cost:] = np.maximum(best[cost:], best[: max(best.size - cost, 0)] + value)
    return best


def _by_density(values, costs):
    """Items of positive value, the most value per cost first."""
    items = np.flatnonzero(values > 0)
    with np.errstate(divide="ignore"):
        density = values[items] / costs[items]  # infinite where an item is free
    return items[np.argsort(-density, kind="stable")]


def greedy_knapsack(values, costs, budget):
    """Take items by falling value per cost, each that still fits; or the best single item, if that is worth more.

    Args:
        values: float array ``(n,)``, finite. Items of no positive value are never chosen.
        costs: int array ``(n,)``, not negative, with a sum below 2^53.
        budget: number, not negative.

    Returns:
        ``(mask, value)``: bool array ``(n,)`` and a float, at least half of what `exact_knapsack` reaches.

    Raises:
        ValueError: if an argument is out of range.

    Source: Kellerer, Pferschy & Pisinger 2004, "Knapsack Problems", section 2.1 ("Ext-Greedy").

    Example:
        >>> mask, value = greedy_knapsack([6.0, 10.0, 12.0], [1, 2, 3], 5)
        >>> mask.tolist(), value
        ([True, True, False], 16.0)
    """
    values, costs, left = _checked_items(values, costs, budget)
    mask = np.zeros(values.size, bool)
    items = _by_density(values, costs)
    items = items[costs[items] <= left]
    best = items[np.argmax(values[items])] if items.size else None
    while items.size:  # every round ends at an item that does not fit, after which none of its cost does
        spent = np.cumsum(costs[items])
        count = int(np.searchsorted(spent, left, side="right"))
        mask[items[:count]] = True
        left -= int(spent[count - 1]) if count else 0
        items = items[count:]
        items = items[costs[items] <= left]
    if best is not None and values[best] > values[mask].sum():
        mask[:] = False
        mask[best] = True
    return mask, float(values[mask].sum())


def fractional_bound(values, costs, budget):
    """The value if the last item could be cut: no choice of whole items is worth more.

    Args:
        values: float array ``(n,)``, finite.
        costs: int array ``(n,)``, not negative, with a sum below 2^53.
        budget: number, not negative.

    Returns:
        float.

    Raises:
        ValueError: if an argument is out of range.

    Source: Dantzig 1957, "Discrete-variable extremum problems".

    Example:
        >>> fractional_bound([6.0, 10.0, 12.0], [1, 2, 3], 5)
        24.0
    """
    values, costs, budget = _checked_items(values, costs, budget)
    items = _by_density(values, costs)
    spent = np.cumsum(costs[items])
    count = int(np.searchsorted(spent, budget, side="right"))
    value = float(values[items[:count]].sum())
    if count < items.size:
        left = budget - (int(spent[count - 1]) if count else 0)
        value += float(values[items[count]]) * left / int(costs[items[count]])
    return value


def reduce_layer(saliency, bits, budget_bytes, method="exact"):
    """Keep the edges of the largest total saliency that fit into a number of bytes, over one layer or several.

    Args:
        saliency: float array of any shape, one number per edge, finite; or a list of such arrays, one per layer. What
            is lost if the edge goes, such as ``(gradient * weight)**2`` summed over a calibration batch. Edges of no
            positive saliency always go.
        bits: what an edge costs, whole bits: an int, an int array that broadcasts to ``saliency``, or for a list
            of layers a list of those.
        budget_bytes: bytes for all layers together; what else is in the file is to be taken off before.
        method: ``"exact"`` (`exact_knapsack`) or ``"greedy"`` (`greedy_knapsack`).

    Returns:
        bool array of the shape of ``saliency``, True stays; for a list of layers, a list of those.

    Raises:
        ValueError: if an argument is out of range or the shapes do not fit.

    Source: founding document "Model Compression" (H. Vaidya), which asks for it and stops at one neuron; LeCun, Denker
        & Solla 1989, "Optimal brain damage" (saliency).

    Example:
        >>> masks = reduce_layer([np.array([9.0, 1.0]), np.array([[5.0], [6.0]])], [8, 4], budget_bytes=1)
        >>> [mask.tolist() for mask in masks]
        [[False, False], [[True], [True]]]
    """
    choose = {"exact": exact_knapsack, "greedy": greedy_knapsack}
    check_choice("method", method, choose)
    several = isinstance(saliency, list | tuple)
    layers = [np.asarray(layer) for layer in (saliency if several else [saliency])]
    bits = bits if several and isinstance(bits, list | tuple) else [bits] * len(layers)
    try:
        costs = [np.broadcast_to(own, layer.shape).ravel() for own, layer in zip(bits, layers, strict=True)]
    except ValueError as error:
        raise ValueError(f"Expected bits that broadcast to the saliency of each layer. Received: {bits=}") from error
    values = np.concatenate([np.zeros(0), *(layer.ravel() for layer in layers)])
    mask, _ = choose[method](values, np.concatenate([np.zeros(0, np.int64), *costs]), 8 * budget_bytes)
    parts = np.split(mask, np.cumsum([layer.size for layer in layers])[:-1]) if layers else []
    masks = [part.reshape(layer.shape) for part, layer in zip(parts, layers, strict=True)]
    return masks if several else masks[0]
