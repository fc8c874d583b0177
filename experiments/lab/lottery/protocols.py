"""The protocols: which part of a trained network stays, and from which weights it is trained again.

==================  =============================  ============================================================
protocol            what stays                     starts from
==================  =============================  ============================================================
``one_shot``        the largest of the trained     the trained weights (fine-tuning)
``winning_ticket``  the same                       the initial weights of the survivors
``random_reinit``   the same                       other initial weights, drawn as for the whole network
``iterative``       the largest after each round   the initial weights, or those of an early step, in every round
``random_pruning``  as many, at random             the trained weights: the control of ``one_shot``
==================  =============================  ============================================================

The control of ``winning_ticket`` is ``random_reinit``. With neurons it is also what random pruning with a rewind would
be: neurons are alike before training, so a random choice of them is a new draw.

Source: Frankle & Carbin 2019, "The Lottery Ticket Hypothesis" (arXiv 1803.03635), sections 2 and 4; rewinding to an
early step: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis" (arXiv 1912.05671); random
pruning as a baseline: Blalock et al. 2020, "What is the State of Neural Network Pruning?" (arXiv 2003.03033).
"""

import functools

import keras
import numpy as np

from lab.lottery.subnetworks import Neurons, Weights
from lab.stage import fingerprint

__all__ = ["Lottery", "round_ratios"]

_FRESH = 1_000_000  # between the seed of a run and that of its other initial weights
_DENSE = ("model", "epochs", "patience", "start_from_epoch", "batch_size", "learning_rate", "shift")
_PRUNED = (*_DENSE, "structure")
_ITERATIVE = (*_PRUNED, "rounds", "rewind_steps")


def round_ratios(ratio, rounds):
    """The fraction that is gone after each round: ``1 - (1 - ratio)^(n / rounds)``, the last one ``ratio`` itself.

    Every round prunes ``1 - (1 - ratio)^(1 / rounds)`` of what is left. Counts are rounded from the whole network's
    ratio, so that rounds of less than one neuron add up.

    Example:
        >>> [round(r, 2) for r in round_ratios(0.75, 2)]
        [0.5, 0.75]
    """
    return [1 - (1 - ratio) ** (n / rounds) for n in range(1, rounds)] + [ratio]


class Lottery:
    """One seed: its initial weights, the dense network that was trained from them, and what is pruned from it.

    Args:
        trainer: `lab.lottery.training.Trainer`.
        seed: of initial weights, order and random choices.
        task: `lab.lottery.tasks.Task`.

    Attributes:
        dense: the trained network.
        initial: the weights that it was trained from.
    """

    def __init__(self, trainer, seed, task):
        self.trainer, self.config, self.seed, self.task = trainer, trainer.config, seed, task
        self.pruning = {"structured": Neurons, "unstructured": Weights}[self.config.structure]()
        self.dense = task.build(seed)
        self.initial = self.dense.get_weights()
        self.dense_name, self.dense_record = self._train(self.dense, "dense", _DENSE)
        self.everything = self.pruning.everything(self.dense)

    def prune(self, protocol, ratio):
        """Prune by one protocol and train.

        Args:
            protocol: one of `lab.lottery.PROTOCOLS`, or "dense".
            ratio: fraction to prune.

        Returns:
            ``(network, name of its stage, records of all trainings that led to it, the dense one first)``.
        """
        if protocol == "dense":
            return self.dense, self.dense_name, [self.dense_record]
        if protocol == "iterative":
            return self._iterative(ratio)
        if protocol == "random_pruning":
            rng = np.random.default_rng([self.seed, round(1e6 * ratio)])
            kept = self.pruning.at_random(self.everything, ratio, rng)
        else:
            kept = self.pruning.choose(self.dense, self.everything, ratio)
        if protocol == "winning_ticket":
            start = self.initial
        elif protocol == "random_reinit":
            start = self.task.build(self.seed + _FRESH).get_weights()
        else:
            start = self.dense.get_weights()
        network = self._cut(start, kept)
        name, record = self._train(network, f"{protocol}-{ratio!r}", _PRUNED)
        return network, name, [self.dense_record, record]

    def _iterative(self, ratio):
        """Rounds that prune nothing are left out: the training after them would be the last one again."""
        network, name, kept, records = self.dense, self.dense_name, self.everything, [self.dense_record]
        for number, gone in enumerate(round_ratios(ratio, self.config.rounds), start=1):
            chosen = self.pruning.choose(network, kept, gone)
            if all(np.array_equal(chosen[layer], kept[layer]) for layer in kept):
                continue
            kept, network = chosen, self._cut(self._early, chosen)
            name, record = self._train(network, f"iterative-{ratio!r}-{number}", _ITERATIVE)
            records.append({**record, "rewound_epochs": self.config.rewind_steps / self.trainer.steps_per_epoch})
        return network, name, records

    @functools.cached_property
    def _early(self):
        """What iterative pruning rewinds to."""
        steps, best = self.config.rewind_steps, self.dense_record["best_epoch"] * self.trainer.steps_per_epoch
        if not steps:
            return self.initial
        if steps > best:
            raise ValueError(
                f"Expected rewind_steps to be at most {best}, where the dense network of seed {self.seed} is best. "
                f"Received: rewind_steps={steps}"
            )
        network = self._whole(self.initial)
        self._train(network, f"early-{steps}", _DENSE, steps)
        return network.get_weights()

    def _whole(self, weights):
        """The network that nothing has been pruned from, with these weights; its layers have the dense one's names."""
        model = keras.models.clone_model(self.dense)
        model.set_weights(weights)
        return model

    def _cut(self, weights, kept):
        """The part of a network with these weights that is kept."""
        return self.pruning.cut(self._whole(weights), kept)

    def _train(self, network, label, settings, steps=None):
        """Train a network, or load it; returns the name of its stage, and its record.

        The name tells from which weights: what was pruned from a network that has since been trained again, and came
        out differently, is not mistaken for what is pruned now.
        """
        key = f"{self.config.key(*settings)}-{fingerprint(network)}"
        name = f"lottery-{self.task.name}-{label}-seed{self.seed}-{key}"
        return name, self.trainer.train(network, name, self.seed, steps)
