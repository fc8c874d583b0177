"""Lottery tickets: which part of a network trains as well alone, and how honest its answers are.

==================  =============================  ============================================================
protocol            what stays                     starts from
==================  =============================  ============================================================
``one_shot``        the largest of the trained     the trained weights (fine-tuning)
``winning_ticket``  the same                       the initial weights of the survivors
``random_reinit``   the same                       other initial weights, drawn as for the whole network
``iterative``       the largest after each round   the initial weights, or those of an early epoch, in every round
``random_pruning``  as many, at random             the trained weights: the control of ``one_shot``
==================  =============================  ============================================================

The control of ``winning_ticket`` is ``random_reinit``. With neurons it is also what random pruning with a rewind would
be: neurons are alike before training, so a random choice of them is a new draw.

Source: Frankle & Carbin 2019, "The Lottery Ticket Hypothesis" (arXiv 1803.03635), sections 2 and 4; rewinding to an
early step: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis" (arXiv 1912.05671); random
pruning as a baseline: Blalock et al. 2020, "What is the State of Neural Network Pruning?" (arXiv 2003.03033).
"""

import dataclasses
import functools
import itertools
import typing

import keras
import numpy as np

from scc_tf import metrics
from scc_tf.arguments import check_choice, check_count, check_number
from scc_tf.classifier import class_labels
from scc_tf.evaluation.outputs import classifier_outputs
from scc_tf.protocols.subnetworks import STRUCTURES, parameter_count
from scc_tf.protocols.training import Training
from scc_tf.reports import Report, Table

__all__ = ["PROTOCOLS", "LotteryReport", "Ticket", "Tickets", "lottery", "round_ratios"]

PROTOCOLS = ("one_shot", "winning_ticket", "random_reinit", "iterative", "random_pruning")
_MEASURES = (metrics.accuracy, metrics.negative_log_likelihood, metrics.expected_calibration_error)
_FRESH = 1_000_000  # between a seed and that of other initial weights


class Ticket(typing.NamedTuple):
    """A pruned network that was trained, and what its answers to held-out examples are worth.

    Attributes:
        protocol: one of `PROTOCOLS`, or "dense".
        ratio: fraction that was pruned.
        model: the network.
        epochs: of its last training, up to the lowest validation loss.
        parameters: weights and biases that are left.
        accuracy: fraction.
        negative_log_likelihood: nats.
        calibration_error: expected, 15 bins of equal width, fraction.
    """

    protocol: str
    ratio: float
    model: keras.Model
    epochs: int
    parameters: int
    accuracy: float
    negative_log_likelihood: float
    calibration_error: float


@dataclasses.dataclass(frozen=True, repr=False)
class LotteryReport(Report):
    """The dense network and its tickets; ``print`` it for a table.

    Attributes:
        tickets: tuple of `Ticket`; the first is the dense network.
    """

    tickets: tuple = dataclasses.field(repr=False)

    totals = ("rows",)

    @property
    def dense(self):
        """The network that nothing was pruned from, a `Ticket`."""
        return self.tickets[0]

    @property
    def rows(self):
        """Each ticket as a dictionary, without its network."""
        return [{name: v for name, v in t._asdict().items() if name != "model"} for t in self.tickets]

    def parts(self):
        """A row for each ticket."""
        head = ("protocol", "pruned", "parameters", "epochs", "accuracy", "NLL", "ECE")
        cells = [
            (
                *(t.protocol, f"{t.ratio:.0%}", f"{t.parameters:,}", t.epochs, f"{t.accuracy:.2%}"),
                *(f"{t.negative_log_likelihood:.4f}", f"{t.calibration_error:.2%}"),
            )
            for t in self.tickets
        ]
        yield Table("{:<16}{:>8}{:>12}{:>8}{:>10}{:>9}{:>9}", cells, head)


def lottery(  # noqa: PLR0913 (as many as Keras's fit)
    build,
    data,
    ratios=(0.2, 0.5, 0.8),
    protocols=PROTOCOLS,
    *,
    structure="structured",
    rounds=5,
    rewind_epochs=0,
    epochs=100,
    patience=5,
    **training,
):
    """Train a network, prune it by every protocol and ratio, and train again what is left.

    Every training has a constant learning rate (Adam), stops when the validation loss no longer falls, and keeps the
    weights of the lowest.

    Args:
        build: function ``seed -> Sequential or functional classifier``, with initial weights of that seed.
        data: inputs and class labels, see `scc_tf.compress`; a tenth is held out to stop by and to measure on.
        ratios: fractions to prune, in (0, 1).
        protocols: of `PROTOCOLS`.
        structure: ``"structured"``: every layer but the last loses neurons or filters, and the network gets smaller;
            ``"unstructured"``: the smallest weights go.
        rounds: of iterative pruning, each a training.
        rewind_epochs: epoch of the dense training that iterative pruning rewinds to; 0: the initial weights.
        epochs: of a training, at most.
        patience: epochs without a lower validation loss, after which a training stops.
        **training: ``learning_rate``, ``loss``, ``batch_size``, ``validation_data``, ``seed``, ``verbose`` of
            `Training`.

    Returns:
        `LotteryReport`. `scc_tf.evaluate_compression` compares ``report.dense.model`` with the ``model`` of a ticket
        on a test set: calibration at a fitted temperature, what lies out of distribution, size and work.

    Raises:
        ValueError: if an argument is out of range, or channels of the network cannot be removed.

    Example:
        >>> report = lottery(build, (x_train, y_train), ratios=(0.6,))  # doctest: +SKIP
        >>> print(report)                                               # doctest: +SKIP
    """
    check_choice("structure", structure, STRUCTURES)
    protocols = [check_choice("protocols", protocol, PROTOCOLS) for protocol in protocols]
    ratios = [check_number("ratios", ratio, above=0, below=1) for ratio in ratios]
    counts = {
        "rounds": (rounds, 1),
        "rewind_epochs": (rewind_epochs, 0),
        "epochs": (epochs, 1),
        "patience": (patience, 1),
    }
    for name, (value, least) in counts.items():
        check_count(name, value, least)
    dense = build(training.get("seed", 0))
    fit = Training(dense, data, **training)
    inputs, labels = fit.data.validation
    labels = class_labels(labels, dense)

    def train(network, label):
        stop = keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True)
        fit(network, epochs, [stop], constant=True, validate=True)
        return stop.best_epoch + 1

    def measured(protocol, ratio, network, trained_for):
        probabilities = metrics.softmax(classifier_outputs(network, {"held out": inputs}).logits["held out"])
        return Ticket(
            *(protocol, ratio, network, trained_for, parameter_count(network)),
            *(float(measure(probabilities, labels)) for measure in _MEASURES),
        )

    initial = dense.get_weights()

    @functools.cache
    def early():
        return fit(build(fit.seed), rewind_epochs, constant=True).get_weights() if rewind_epochs else initial

    found = [measured("dense", 0.0, dense, train(dense, "dense"))]
    tickets = Tickets(
        dense,
        structure=structure,
        initial=initial,
        redraw=lambda: build(fit.seed + _FRESH).get_weights(),
        early=early,
        train=train,
        rounds=rounds,
        seed=fit.seed,
    )
    for protocol, ratio in itertools.product(protocols, ratios):
        network, trainings = tickets.prune(protocol, ratio)
        found.append(measured(protocol, ratio, network, [found[0].epochs, *trainings][-1]))
    return LotteryReport(tuple(found))


def round_ratios(ratio, rounds):
    """The fraction that is gone after each round: ``1 - (1 - ratio)^(n / rounds)``, the last one ``ratio`` itself.

    Every round prunes ``1 - (1 - ratio)^(1 / rounds)`` of what is left. Counts are rounded from the whole network's
    ratio, so that rounds of less than one neuron add up.

    Example:
        >>> [round(r, 2) for r in round_ratios(0.75, 2)]
        [0.5, 0.75]
    """
    return [1 - (1 - ratio) ** (n / rounds) for n in range(1, rounds)] + [ratio]


@dataclasses.dataclass
class Tickets:
    """What is pruned from one trained network, and trained again.

    Attributes:
        dense: the trained network.
        structure: see `lottery`.
        initial: the weights that it was trained from.
        redraw: function that gives other initial weights.
        early: function that gives the weights that iterative pruning rewinds to.
        train: function ``(network, label) -> anything`` that trains in place.
        rounds: of iterative pruning.
        seed: of random choices.
    """

    dense: keras.Model
    structure: str
    initial: list
    redraw: typing.Callable
    early: typing.Callable
    train: typing.Callable
    rounds: int
    seed: int

    def __post_init__(self):
        """What there is to prune."""
        self._pruning = STRUCTURES[self.structure]()
        self._everything = self._pruning.everything(self.dense)

    def prune(self, protocol, ratio):
        """The network that a protocol of `PROTOCOLS` leaves, trained; and what ``train`` returned each time."""
        pruning, everything = self._pruning, self._everything
        if protocol == "iterative":
            return self._iterative(ratio)
        if protocol == "random_pruning":
            kept = pruning.at_random(everything, ratio, np.random.default_rng([self.seed, round(1e6 * ratio)]))
        else:
            kept = pruning.choose(self.dense, everything, ratio)
        starts = {"winning_ticket": lambda: self.initial, "random_reinit": self.redraw}
        network = self._cut(starts.get(protocol, self.dense.get_weights)(), kept)
        return network, [self.train(network, f"{protocol}-{ratio!r}")]

    def _iterative(self, ratio):
        """Rounds that prune nothing are left out: the training after them would be the last one again."""
        network, kept, trainings = self.dense, self._everything, []
        for number, gone in enumerate(round_ratios(ratio, self.rounds), start=1):
            chosen = self._pruning.choose(network, kept, gone)
            if all(np.array_equal(chosen[layer], kept[layer]) for layer in kept):
                continue
            kept, network = chosen, self._cut(self.early(), chosen)
            trainings.append(self.train(network, f"iterative-{ratio!r}-{number}"))
        return network, trainings

    def _cut(self, weights, kept):
        """The part of a network with these weights that is kept; its layers have the dense one's names."""
        model = keras.models.clone_model(self.dense)
        model.set_weights(weights)
        return self._pruning.cut(model, kept)
