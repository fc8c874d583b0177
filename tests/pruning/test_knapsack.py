import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scc_tf.pruning import (
    edge_bits,
    exact_knapsack,
    fractional_bound,
    greedy_knapsack,
    reduce_layer,
)

VALUES = st.floats(-1, 10) | st.integers(0, 3).map(float)
ITEMS = st.lists(st.tuples(VALUES, st.integers(0, 7)), max_size=9)


@pytest.mark.slow
@settings(max_examples=150)
@given(ITEMS, st.floats(0, 40))
def test_exact_is_the_best_of_all_subsets_and_lies_between_greedy_and_the_bound(items, budget):
    values, costs = np.array([v for v, _ in items]), np.array([c for _, c in items], int)
    subsets = [np.array(s, bool) for s in itertools.product([False, True], repeat=len(items))]
    best = max(values[s].sum() for s in subsets if costs[s].sum() <= budget)
    chosen, value = exact_knapsack(values, costs, budget)
    greedy, greedy_value = greedy_knapsack(values, costs, budget)
    for mask, total in ((chosen, value), (greedy, greedy_value)):
        assert costs[mask].sum() <= budget
        assert total == values[mask].sum()
        assert (values[mask] > 0).all()
    assert value == pytest.approx(best)
    assert greedy_value - 1e-9 <= value <= fractional_bound(values, costs, budget) + 1e-9
    assert 2 * greedy_value >= value - 1e-9


def slow_best(values, costs, budget):
    """The textbook's table, one item at a time."""
    best = np.zeros(budget + 1)
    for value, cost in zip(values, costs, strict=True):
        best[cost:] = np.maximum(best[cost:], best[: budget + 1 - cost] + value)
    return best[-1]


@pytest.mark.parametrize("most", [2, 5, 40])
@pytest.mark.parametrize("seed", range(4))
def test_many_items_of_few_costs_agree_with_the_table(most, seed):
    rng = np.random.default_rng(seed)
    values = rng.choice([rng.exponential(size=300), rng.integers(1, 4, 300)])
    costs = rng.integers(1, most, 300) * (seed + 1)
    for budget in (0, 50, 97, int(costs.sum()) // 2, int(costs.sum()) + 9):
        mask, value = exact_knapsack(values, costs, budget)
        assert costs[mask].sum() <= budget
        assert value == pytest.approx(slow_best(values, np.minimum(costs, budget + 1), budget))


def test_equal_edges_go_by_magnitude_and_the_first_of_equals_stay():
    saliency = np.array([[3.0, 1.0, 3.0], [3.0, 0.0, 2.0]])
    mask = reduce_layer(saliency, 11, budget_bytes=4)
    assert mask.tolist() == [[True, False, True], [False, False, False]]
    np.testing.assert_array_equal(reduce_layer(saliency, 11, 4, method="greedy"), mask)
    assert reduce_layer(saliency, 11, 1e6).tolist() == (saliency > 0).tolist()


def test_layers_share_one_budget():
    rng = np.random.default_rng(0)
    layers = [rng.exponential(size=(30, 20)), 2 * rng.exponential(size=(3, 3, 4, 8)), rng.exponential(size=50)]
    bits = [9, 13, rng.integers(4, 7, 50)]
    kept = {}
    for method in ("exact", "greedy"):
        masks = reduce_layer(layers, bits, 300.5, method)
        assert [mask.shape for mask in masks] == [layer.shape for layer in layers]
        spent = sum((np.broadcast_to(b, m.shape)[m]).sum() for b, m in zip(bits, masks, strict=True))
        assert 2404 - 13 < spent <= 2404
        kept[method] = sum(layer[mask].sum() for layer, mask in zip(layers, masks, strict=True))
    assert kept["greedy"] <= kept["exact"]
    assert sum(int(mask.sum()) for mask in reduce_layer(layers, 8, 10)) == 10
    assert reduce_layer([], 8, 10) == []


def test_an_edge_costs_its_place_and_its_weight():
    kept = np.zeros((2, 8, 16), bool)  # 16 inputs, 16 channels
    kept[0] = kept[0, 0, 0] = True
    kept[..., 8:] = False
    clusters = np.zeros(kept.shape, int)
    clusters[:, 4:] = 1
    clusters[0, 7, 0] = 2
    bits = edge_bits(kept, clusters)
    assert bits.shape == kept.shape
    assert bits.dtype == np.int64
    assert bits[0, :4, :8].tolist() == [[1] * 8] * 4  # all are there, half of them of this cluster
    assert bits[0, 7, 0] == bits[0, 6, 0] + 4  # a weight of its own
    assert bits[1, 0, 0] == bits[0, 0, 8] == bits[0, 0, 0] + 4  # an empty row, an empty column
    assert bits[1, 0, 8] == bits[1, 0, 0] + 4
    np.testing.assert_array_equal(edge_bits(kept.reshape(16, 16), clusters.reshape(16, 16)), bits.reshape(16, 16))


def test_edges_without_a_pattern_cost_the_entropy():
    rng = np.random.default_rng(0)
    kept, clusters = rng.random((400, 300)) < 1 / 32, rng.integers(0, 8, (400, 300))
    assert edge_bits(kept, clusters)[kept].mean() == pytest.approx(5 + 3, abs=0.3)  # rows and columns vary by chance


def test_an_empty_kernel_has_costs_too():
    assert (edge_bits(np.zeros((3, 4), bool), np.zeros((3, 4), int)) >= 1).all()


def test_exact_and_greedy_agree_on_real_costs_of_a_small_layer():
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(100, 10)) * rng.exponential(size=(100, 1))
    kept = np.abs(weights) > 1.2
    bits = edge_bits(kept, np.digitize(weights, np.linspace(-3, 3, 15)))
    values, budget = weights**2, int(bits[kept].sum())
    reached = {m: values[reduce_layer(values, bits, budget / 8, m)].sum() for m in ("exact", "greedy")}
    bound = fractional_bound(values.ravel(), bits.ravel(), budget)
    assert values[kept].sum() < reached["greedy"]
    assert reached["greedy"] <= reached["exact"] <= bound < 1.001 * reached["greedy"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: exact_knapsack([1.0], [1, 2], 3),
        lambda: exact_knapsack([[1.0]], [[1]], 3),
        lambda: exact_knapsack([np.nan], [1], 3),
        lambda: exact_knapsack([np.inf], [1], 3),
        lambda: exact_knapsack([1.0], [-1], 3),
        lambda: exact_knapsack([1.0], [0.5], 3),
        lambda: exact_knapsack([1.0], [1], -1),
        lambda: exact_knapsack([1.0, 1.0], [10**12, 10**12 + 1], 10**13),
        lambda: greedy_knapsack([1.0], [1], np.nan),
        lambda: fractional_bound([1.0], [1], np.inf),
        lambda: edge_bits(np.ones((2, 2), bool), np.zeros((2, 3), int)),
        lambda: edge_bits(np.ones((2, 2), bool), np.zeros((2, 2))),
        lambda: edge_bits(np.ones((2, 2), bool), np.full((2, 2), -1)),
        lambda: edge_bits(np.ones((0, 2), bool), np.zeros((0, 2), int)),
        lambda: reduce_layer([np.ones(2)], [1, 2], 3),
        lambda: reduce_layer(np.ones(2), np.ones(3, int), 3),
        lambda: reduce_layer(np.ones(2), 1.5, 3),
        lambda: reduce_layer(np.ones(2), 1, 3, "random"),
    ],
)
def test_wrong_arguments_are_refused(call):
    with pytest.raises(ValueError, match="Received"):
        call()
