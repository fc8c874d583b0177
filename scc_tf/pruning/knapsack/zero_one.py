"""0-1 knapsacks of many items: exact by dynamic programming, greedy, and a bound; and a network cut to a budget.

Shapes: ``n`` items.
"""

import math

import numpy as np

__all__ = ["METHODS", "exact_knapsack", "fractional_bound", "greedy_knapsack", "reduce_layer"]

METHODS = ("exact", "greedy")
_LARGEST_CAPACITY = 1 << 24  # 128 MiB per table of best values
_AT_ONCE = 1 << 18  # entries of the tables that are compared at once
_FEW = 12  # items of one cost that are faster one by one


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

    Items of one cost are chosen by falling value, so with ``f(c)`` the best value at capacity ``c`` and ``P(j)`` the
    value of the ``j`` best among ``m`` items of cost ``w``, a whole class of items is added at once::

        f'(c) = max_j f(c - j w) + P(min(j, m))

    ``P`` is concave, hence the maximizing ``j`` moves in one direction with ``c``, and a class takes ``O(B log B)``
    for the capacity ``B``, however many items it has. Which items they are is found by halving the classes, the
    capacity divided between both halves (Hirschberg), so that no table of choices is kept.

    Args:
        values: float array ``(n,)``, finite. Items of no positive value are never chosen.
        costs: int array ``(n,)``, not negative, with a sum below 2^53.
        budget: number, not negative; fractions of a unit are of no use.

    Returns:
        ``(mask, value)``: bool array ``(n,)`` and a float. Exact up to the rounding of sums in float64. Of equal
        values the first items are chosen.

    Raises:
        ValueError: if an argument is out of range, or the budget over the costs' common divisor is above 2^24.

    Time is ``O(K B log B)`` for ``K`` different costs, memory ``O(n + B)``.

    Source: Kellerer, Pferschy & Pisinger 2004, "Knapsack Problems", sections 2.3 and 3.3; Axiotis & Tzamos 2019,
        "Capacitated dynamic programming" (arXiv 1802.06440), for classes of equal cost.

    Example:
        >>> mask, value = exact_knapsack([6.0, 10.0, 12.0], [1, 2, 3], 5)
        >>> mask.tolist(), value
        ([False, True, True], 22.0)
    """
    values, costs, budget = _checked_items(values, costs, budget)
    worth = (values > 0) & (costs <= budget)
    mask = worth & (costs == 0)
    classes = _classes(values, costs, np.flatnonzero(worth & (costs > 0)))
    unit = math.gcd(*(int(costs[items[0]]) for items, _, _ in classes)) or 1
    classes = [(items, cost // unit, sums) for items, cost, sums in classes]
    capacity = min(budget // unit, sum(cost * items.size for items, cost, _ in classes))
    if capacity > _LARGEST_CAPACITY:
        raise ValueError(f"Expected a budget of at most {_LARGEST_CAPACITY} units of {unit}. Received: {budget=}")
    _choose(classes, capacity, mask)
    return mask, float(values[mask].sum())


def _classes(values, costs, items):
    """Items by cost: ``(items by falling value, cost, sums of their values)``."""
    items = items[np.lexsort((-values[items], costs[items]))]
    starts = np.flatnonzero(np.diff(costs[items])) + 1
    groups = np.split(items, starts) if items.size else []
    return [(group, int(costs[group[0]]), np.append(0.0, np.cumsum(values[group]))) for group in groups]


def _choose(classes, capacity, mask):
    if not classes:
        return
    if len(classes) == 1:
        items, cost, _ = classes[0]
        mask[items[: capacity // cost]] = True
        return
    halves = classes[: len(classes) // 2], classes[len(classes) // 2 :]
    left = int(np.argmax(_best(halves[0], capacity) + _best(halves[1], capacity)[::-1]))
    _choose(halves[0], left, mask)
    _choose(halves[1], capacity - left, mask)


def _best(classes, capacity):
    """Best value at the capacities 0 to ``capacity``, float64."""
    best = np.zeros(capacity + 1)
    for items, cost, sums in classes:
        if cost > capacity:
            continue
        if items.size <= _FEW:
            for value in np.diff(sums):
                best[cost:] = np.maximum(best[cost:], best[:-cost] + value)
        else:
            best = _with_class(best, cost, sums)
    return best


def _with_class(best, cost, sums):
    """``max_j best(c - j * cost) + sums(j)`` at every capacity ``c``: capacities apart by ``cost`` are a column."""
    rows = -(-best.size // cost)
    table = np.append(best, np.zeros(rows * cost - best.size)).reshape(rows, cost)
    some = max(_AT_ONCE // rows, 1)
    parts = [_column_maxima(table[:, column : column + some], sums) for column in range(0, cost, some)]
    return np.concatenate(parts, axis=1).ravel()[: best.size]


def _column_maxima(table, sums):
    """``max_k table[k] + sums[min(i - k, m)]`` over ``k <= i`` for every row ``i``, column by column.

    The maximizing ``k`` rises with ``i``. Rows are therefore done in halves: every second row lies between two whose
    maximizers are known, and all of these are compared at once.
    """
    rows = len(table)
    most = sums.size - 1
    maxima, where = np.empty_like(table), np.zeros(table.shape, np.int64)
    maxima[0] = table[0]
    stride = 1 << (rows - 1).bit_length() >> 1
    while stride:
        own = np.arange(stride, rows, 2 * stride)[:, None]
        low = np.maximum(where[own[:, 0] - stride], own - most)
        high = np.broadcast_to(own, low.shape).copy()
        inner = own[own + stride < rows]
        high[: inner.size] = np.minimum(high[: inner.size], where[inner + stride])
        maxima[own[:, 0]], where[own[:, 0]] = _ranges_maxima(table, sums, own, low, high)
        stride //= 2
    return maxima


def _ranges_maxima(table, sums, rows, low, high):
    """Maxima and first maximizers ``(rows, columns)`` of ``table[k] + sums[row - k]`` over ``low <= k <= high``."""
    lengths = (high - low + 1).ravel()
    starts = np.cumsum(lengths) - lengths
    entry = np.repeat(np.arange(lengths.size), lengths)
    k = np.arange(entry.size) - (starts - low.ravel())[entry]
    column = entry % table.shape[1]
    values = table[k, column] + sums[rows[entry // table.shape[1], 0] - k]
    top = np.maximum.reduceat(values, starts)
    first = np.minimum.reduceat(np.where(values == top[entry], k, len(table)), starts)
    return top.reshape(low.shape), first.reshape(low.shape)


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
    if method not in METHODS:
        raise ValueError(f"Expected method to be one of {METHODS}. Received: {method=}")
    several = isinstance(saliency, (list, tuple))
    layers = [np.asarray(layer) for layer in (saliency if several else [saliency])]
    bits = bits if several and isinstance(bits, (list, tuple)) else [bits] * len(layers)
    if len(bits) != len(layers):
        raise ValueError(f"Expected bits for each layer. Received: {len(bits)} for {len(layers)} layers")
    values = np.concatenate([np.zeros(0), *(layer.ravel() for layer in layers)])
    costs = [_bits_of_edges(own, layer) for own, layer in zip(bits, layers, strict=True)]
    choose = exact_knapsack if method == "exact" else greedy_knapsack
    mask, _ = choose(values, np.concatenate([np.zeros(0, np.int64), *costs]), 8 * budget_bytes)
    parts = np.split(mask, np.cumsum([layer.size for layer in layers])[:-1]) if layers else []
    masks = [part.reshape(layer.shape) for part, layer in zip(parts, layers, strict=True)]
    return masks if several else masks[0]


def _bits_of_edges(bits, layer):
    bits = np.asarray(bits)
    try:
        return np.broadcast_to(bits, layer.shape).ravel()
    except ValueError as error:
        raise ValueError(
            "Expected bits that broadcast to the saliency. "
            f"Received: bits.shape={bits.shape}, saliency.shape={layer.shape}"
        ) from error
