"""The founding document's reduction: one neuron gives the same net value over fewer edges.

It holds for the one input vector that the file names, so it makes no network smaller that has to answer for others;
`scc_tf.pruning.reduce_layer` is for those.
"""

import csv
import math
import re
from fractions import Fraction
from typing import NamedTuple

__all__ = ["Neuron", "Reduction", "parse_neurons", "reduce_neuron"]

_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
_CELL = re.compile(rf"\s*{_NUMBER}\s*x\s*{_NUMBER}\s*", re.ASCII | re.IGNORECASE)
_MOST_DIVISORS = 1 << 16  # the search ends after this many steps per input


class Neuron(NamedTuple):
    """A row of the founding document's file: inputs and their weights, as exact fractions of the decimals written."""

    inputs: tuple[Fraction, ...]
    weights: tuple[Fraction, ...]

    @property
    def net(self):
        """The net value ``sum(input * weight)``, exact."""
        return sum((a * b for a, b in zip(self.inputs, self.weights, strict=True)), Fraction(0))


class Reduction(NamedTuple):
    """The fewest edges that give a neuron's net value.

    Attributes:
        edges: which inputs stay, as positions in the neuron's inputs.
        weights: their new weights, whole numbers.
        net: the net value, exact.
    """

    edges: tuple[int, ...]
    weights: tuple[int, ...]
    net: Fraction


def parse_neurons(text):
    r"""Read neurons from comma-separated text: a row per neuron, a cell ``AxB`` per edge, input A times weight B.

    Args:
        text: the text. A and B are decimal numbers such as ``5``, ``-.6``, ``2.5e-3``. Empty cells and rows count for
            nothing.

    Returns:
        list of `Neuron`.

    Raises:
        ValueError: if a cell reads otherwise or holds a number beyond float64; it names the row and the cell.

    Source: founding document "Model Compression" (H. Vaidya), its ``weights.csv``.

    Example:
        >>> first, second = parse_neurons("1x3,3x3,2x0.3,4x0.1,5x-0.6\n2x1,3x2,4x0.5,,")
        >>> float(first.net), float(second.net)
        (10.0, 10.0)
    """
    neurons = []
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        edges = [_parsed(cell, number) for cell in row if cell.strip()]
        if edges:
            neurons.append(Neuron(*zip(*edges, strict=True)))
    return neurons


def _parsed(cell, row):
    found = _CELL.fullmatch(cell)
    if not found:
        raise ValueError(f"Expected cells such as 5x2 or 3x-.6. Received: {cell!r} in row {row}")
    return tuple(_exact(number) for number in found.groups())


def _exact(number):
    """The decimal that Python writes for this float, as a fraction: 0.3 is 3/10."""
    if isinstance(number, Fraction):
        return number
    number = float(number)
    if not math.isfinite(number):
        raise ValueError(f"Expected finite numbers. Received: {number}")
    return Fraction(repr(number))


def reduce_neuron(inputs, weights):
    """The fewest edges, with whole numbers as weights, that give the same net value for these inputs.

    A set of inputs reaches exactly the multiples of its greatest common divisor, so a smallest set whose divisor
    divides the net value is searched for, large inputs first. Of the chosen ones the largest takes the weight nearest
    to what it would need alone, then the next. A net value of 0 needs no edge. All arithmetic is that of fractions:
    0.3 is three tenths.

    Args:
        inputs: numbers ``(n,)``, such as a row of `parse_neurons` holds.
        weights: numbers ``(n,)``.

    Returns:
        `Reduction`, the edges by descending magnitude of their inputs.

    Raises:
        ValueError: if the lengths differ, a number is not finite, whole-number weights cannot reach the net value, or
            the search grows beyond bounds (inputs of many digits that share many divisors).

    Source: founding document "Model Compression" (H. Vaidya), ``Reduction/reduce.py``; Bézout's identity.

    Example:
        >>> reduce_neuron([1, 3, 2, 4, 5], [3, 3, 0.3, 0.1, -0.6])  # input 5, weight 2
        Reduction(edges=(4,), weights=(2,), net=Fraction(10, 1))
        >>> reduce_neuron([3, 7], [1, 1])[:2]
        ((1, 0), (1, 1))
    """
    neuron = Neuron(tuple(_exact(a) for a in inputs), tuple(_exact(b) for b in weights))
    if len(neuron.inputs) != len(neuron.weights):
        raise ValueError(f"Expected a weight per input. Received: {len(neuron.inputs)} and {len(neuron.weights)}")
    net = neuron.net
    unit = math.lcm(net.denominator, *(a.denominator for a in neuron.inputs))
    goal, whole = int(net * unit), [int(a * unit) for a in neuron.inputs]
    if not goal:
        return Reduction((), (), net)
    edges = _fewest(whole, goal)
    if edges is None:
        raise ValueError(
            "Expected a net value that inputs times whole numbers reach. "
            f"Received: net={net}, inputs={', '.join(map(str, neuron.inputs))}"
        )
    return Reduction(edges, _whole_weights([whole[edge] for edge in edges], goal), net)


def _fewest(numbers, goal):
    """The smallest set of positions whose numbers' greatest common divisor divides the goal, or None.

    Breadth first over divisors: round ``r`` holds each divisor that ``r`` numbers are needed for, and one such set.
    """
    position = {abs(number): place for place, number in reversed(list(enumerate(numbers))) if number}
    by_size = sorted(position, reverse=True)
    reached, seen = {0: ()}, {0}
    while reached:
        following = {}
        for divisor, chosen in reached.items():
            for number in by_size:
                smaller = math.gcd(divisor, number)
                if smaller in seen:
                    continue
                if goal % smaller == 0:
                    return tuple(position[n] for n in sorted((*chosen, number), reverse=True))
                seen.add(smaller)
                following[smaller] = (*chosen, number)
            if len(seen) > _MOST_DIVISORS:
                raise ValueError(f"Expected fewer common divisors. Received: more than {_MOST_DIVISORS} of {numbers}")
        reached = following
    return None


def _whole_weights(numbers, goal):
    """Whole ``w`` with ``sum(w * numbers) == goal``; the numbers' common divisor divides the goal."""
    weights = []
    for place, number in enumerate(numbers[:-1]):
        rest = math.gcd(*numbers[place + 1 :])
        common = math.gcd(number, rest)
        step = rest // common  # every step-th weight leaves a multiple of the rest's divisor
        first = goal // common * pow(number // common, -1, step) % step
        weights.append(first + step * round(Fraction(goal - first * number, step * number)))
        goal -= weights[-1] * number
    return (*weights, goal // numbers[-1])
