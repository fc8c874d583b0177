"""Spread a budget over the chains of a model: where clusters are missed least, there are fewer."""

import dataclasses
import math
import operator

import keras
import numpy as np

from scc_tf.arguments import check_count, check_number, received
from scc_tf.inference import outputs

__all__ = ["ClusterBudget", "chain_errors", "spread"]


@dataclasses.dataclass(frozen=True)
class ClusterBudget:
    """How large a model may be when its filters have been clustered; give one of the two.

    Attributes:
        parameters: trainable parameters at most.
        multiply_accumulates: of one example, at most; twice that are floating-point operations.
        fractions: of a chain's channels that are tried as numbers of clusters, each in (0, 1).

    Raises:
        ValueError: if both or none are given, or a number is out of range.
    """

    parameters: int | None = None
    multiply_accumulates: int | None = None
    fractions: tuple = (0.875, 0.75, 0.5, 0.25, 0.125)

    def __post_init__(self):
        """Check the fields."""
        given = [name for name in ("parameters", "multiply_accumulates") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"Expected either parameters or multiply_accumulates. Received: {self}")
        check_count(given[0], getattr(self, given[0]))
        if not isinstance(self.fractions, tuple | list) or not self.fractions:
            raise ValueError(f"Expected fractions to be numbers in (0, 1). {received('fractions', self.fractions)}")
        for fraction in self.fractions:
            check_number("fractions", fraction, above=0, below=1)

    def options(self, channels):
        """Numbers of clusters of a chain to choose from, descending; all its channels come first."""
        return sorted({channels, *(max(math.floor(f * channels), 1) for f in self.fractions)}, reverse=True)

    def cost(self, costs):
        """The function ``counts -> int`` of `scc_tf.clustering.costs.ChainCosts` that the budget limits."""
        return costs.multiply_accumulates if self.parameters is None else costs.parameters

    @property
    def limit(self):
        """What that may be at most."""
        return self.multiply_accumulates if self.parameters is None else self.parameters

    def check(self, costs):
        """Raise a ValueError if even the smallest numbers of clusters cost more, before anything is measured."""
        _check_limit([self.options(channels) for channels in costs.full], self.cost(costs), self.limit)


def _check_limit(options, cost, limit):
    """Raise a ValueError if even the smallest options cost more than the limit; the arguments are those of `spread`."""
    least = cost([numbers[-1] for numbers in options])
    if least > limit:
        raise ValueError(f"Expected a budget of at least {least}, the smallest numbers of clusters. Received: {limit}")


def chain_errors(inputs, options, clustered):
    """How much the outputs of a model change when one chain alone is clustered: one list of float per chain.

    They are squared changes over the outputs' own squared deviation from the mean answer, for each of the chain's
    ``options``, its numbers of clusters; 0 for the first one. ``clustered`` makes a model of one number per chain, also
    the one with all channels: what it does to batch statistics is no error.
    """
    full = [chain[0] for chain in options]
    wanted = _outputs(clustered(full), inputs)
    deviation = max(np.square(wanted - wanted.mean(axis=0)).sum(), np.finfo(float).tiny)

    def error(number, count):
        changed = _outputs(clustered([*full[:number], count, *full[number + 1 :]]), inputs)
        return float(np.square(changed - wanted).sum() / deviation)

    return [[0.0, *(error(number, count) for count in counts[1:])] for number, counts in enumerate(options)]


def _outputs(model, inputs):
    answers = keras.tree.flatten(outputs(model, inputs))
    return np.concatenate([values.reshape(len(values), -1) for values in answers], axis=1).astype(np.float64)


def spread(options, errors, cost, limit):
    """Choose a number of clusters for every chain, greedily: what costs the least error per saving goes first.

    A step may leap over options, so a chain follows the lower convex hull of its errors. The last leap may save more
    than was asked for: then chains step back as long as the limit allows, what lowers the error most per cost first.
    The errors of several chains are taken to add up.

    Args:
        options: one list of numbers per chain, descending.
        errors: likewise, float.
        cost: function ``counts -> number``, smaller for smaller counts.
        limit: what the cost may be at most.

    Raises:
        ValueError: if the smallest options cost more.

    Example:
        >>> spread([[4, 2], [4, 2]], [[0, 0.1], [0, 0.2]], sum, 6)
        [2, 4]
    """
    _check_limit(options, cost, limit)
    places, now = [0] * len(options), cost([numbers[0] for numbers in options])
    while now > limit:
        _, now, places = min(_moves(options, errors, cost, places, operator.lt), key=lambda move: _rate(move, now))
    while True:
        larger = _moves(options, errors, cost, places, operator.gt)
        better = [move for move in larger if move[1] <= limit and move[0] < 0]
        if not better:
            return _counts(options, places)
        _, now, places = min(better, key=lambda move: _rate(move, now))


def _moves(options, errors, cost, places, compare):
    """``(change of the error, cost after it, places after it)`` of moving one chain to an option that compares so."""
    for chain, now in enumerate(places):
        for place in range(len(options[chain])):
            if compare(now, place):
                moved = [*places[:chain], place, *places[chain + 1 :]]
                yield errors[chain][place] - errors[chain][now], cost(_counts(options, moved)), moved


def _rate(move, now):
    """Change of the error per cost that is saved or spent, where the cost is ``now``."""
    error, cost, _ = move
    return error / max(abs(cost - now), 1e-12)


def _counts(options, places):
    return [numbers[place] for numbers, place in zip(options, places, strict=True)]
