import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scc_tf.pruning import parse_neurons, reduce_neuron

EXAMPLE = "1x3,3x3,2x0.3,4x0.1,5x-0.6\n2x1,3x2,4x0.5,,\n"


def test_the_two_rows_of_the_founding_document():
    neurons = parse_neurons(EXAMPLE)
    assert [neuron.net for neuron in neurons] == [10, 10]
    reduced = [reduce_neuron(*neuron) for neuron in neurons]
    assert [[neuron.inputs[e] for e in r.edges] for neuron, r in zip(neurons, reduced, strict=True)] == [[5], [2]]
    assert [r.weights for r in reduced] == [(2,), (5,)]


def test_any_decimal_is_read():
    (neuron,) = parse_neurons("\n12x.5, -3.25X+2 ,,1e2x-4.E-1\n , \n")
    assert [float(a) for a in neuron.inputs] == [12, -3.25, 100]
    assert [float(b) for b in neuron.weights] == [0.5, 2, -0.4]
    assert neuron.net == Fraction("-40.5")
    assert parse_neurons("") == []


@pytest.mark.parametrize(
    "cell", ["2", "2x", "x2", "2y3", "2x3x4", "nanx1", "infx1", "1e999x1", "1/2x3", "1_0x2", "٣x1"]
)
def test_malformed_cells_are_named(cell):
    with pytest.raises(ValueError, match="Received"):
        parse_neurons(f"1x1\n2x3,{cell},4x5")


NUMBERS = st.integers(-30, 30) | st.sampled_from([0.5, -0.25, 0.3, 1.1, 2.75])


def reaches(numbers, net):
    """Whether whole multiples of the numbers add up to the net value, by closing a set of residues."""
    numbers = [Fraction(str(n)) for n in numbers]
    if not any(numbers):
        return net == 0
    unit = max(abs(n) for n in numbers)
    residues, new = set(), {Fraction(0)}
    while new:
        residues |= new
        new = {(r + n) % unit for r in new for n in numbers} - residues
    return net % unit in residues


@pytest.mark.slow
@settings(max_examples=150)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6))
def test_the_same_net_value_with_the_fewest_edges_or_a_clear_error(edges):
    inputs, weights = [a for a, _ in edges], [b for _, b in edges]
    net = sum((Fraction(str(a)) * Fraction(str(b)) for a, b in edges), Fraction(0))
    try:
        reduction = reduce_neuron(inputs, weights)
    except ValueError as error:
        assert "Received: net=" in str(error)
        assert not reaches(inputs, net)
        return
    assert reduction.net == net
    assert sum((Fraction(str(inputs[e])) * w for e, w in zip(*reduction[:2], strict=True)), Fraction(0)) == net
    fewest = next(k for k in range(7) if any(reaches(c, net) for c in itertools.combinations(inputs, k)))
    assert len(set(reduction.edges)) == len(reduction.edges) == fewest
    assert 0 not in reduction.weights


@pytest.mark.parametrize(
    ("inputs", "weights", "edges", "new"),
    [
        ([3, 7], [1, 1], (1, 0), (1, 1)),  # the founding program's own comment
        ([5, 3], [2, 1], (0, 1), (2, 1)),
        ([6, 10, 15], [1, -2, 1], (2, 1, 0), (1, -2, 1)),
        ([4, 4, 2], [1, 1, 1], (2,), (5,)),  # repeated inputs
        ([-4, 2], [1, 3], (1,), (1,)),
        ([-4, 3], [2, 0], (0,), (2,)),  # a negative net value
        ([0, 5], [9, 1], (1,), (1,)),
        ([2, 3], [3, -2], (), ()),  # a net value of 0
        ([], [], (), ()),
    ],
)
def test_corner_cases(inputs, weights, edges, new):
    assert reduce_neuron(inputs, weights)[:2] == (edges, new)


@pytest.mark.parametrize(
    ("inputs", "weights"),
    [
        ([4, 6], [0.5, 0.5]),  # 5 is no sum of fours and sixes
        ([0, 0.3], [1, 0.5]),
        ([1, 2], [1]),
        ([1], [np.inf]),
        ([np.prod([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43]) // p for p in range(1, 44)], [0.5] * 43),
    ],
)
def test_what_cannot_be_reached_is_refused(inputs, weights):
    with pytest.raises(ValueError, match="Received"):
        reduce_neuron(inputs, weights)


def test_a_search_that_would_grow_without_bounds_is_refused():
    primes = [p for p in range(2, 90) if all(p % q for q in range(2, p))]
    inputs = [Fraction(int(np.prod(primes, dtype=object)) // p) for p in primes]
    with pytest.raises(ValueError, match="divisors"):
        reduce_neuron(inputs, [Fraction(1, 2)] * len(inputs))
