"""The protocols of `scc_tf.protocols.lottery` with cached trainings."""

import functools

import keras

from lab.stage import fingerprint
from scc_tf.protocols.lottery import Tickets

__all__ = ["Lottery"]

_FRESH = 1_000_000  # between the seed of a run and that of its other initial weights
_DENSE = ("model", "epochs", "patience", "start_from_epoch", "batch_size", "learning_rate", "shift")
_PRUNED = (*_DENSE, "structure")
_ITERATIVE = (*_PRUNED, "rounds", "rewind_steps")


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
        self.dense = task.build(seed)
        self.initial = self.dense.get_weights()
        self.dense_name, self.dense_record = self._train(self.dense, "dense", _DENSE)
        self._tickets = Tickets(
            self.dense,
            structure=self.config.structure,
            initial=self.initial,
            redraw=lambda: task.build(seed + _FRESH).get_weights(),
            early=lambda: self._early,
            train=self._train_ticket,
            rounds=self.config.rounds,
            seed=seed,
        )

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
        network, trainings = self._tickets.prune(protocol, ratio)
        names = [self.dense_name, *(name for name, _ in trainings)]
        return network, names[-1], [self.dense_record, *(record for _, record in trainings)]

    def _train_ticket(self, network, label):
        if not label.startswith("iterative"):
            return self._train(network, label, _PRUNED)
        name, record = self._train(network, label, _ITERATIVE)
        return name, {**record, "rewound_epochs": self.config.rewind_steps / self.trainer.steps_per_epoch}

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
        network = keras.models.clone_model(self.dense)
        network.set_weights(self.initial)
        self._train(network, f"early-{steps}", _DENSE, steps)
        return network.get_weights()

    def _train(self, network, label, settings, steps=None):
        """Train a network, or load it; returns the name of its stage, and its record.

        The name tells from which weights: what was pruned from a network that has since been trained again, and came
        out differently, is not mistaken for what is pruned now.
        """
        key = f"{self.config.key(*settings)}-{fingerprint(network)}"
        name = f"lottery-{self.task.name}-{label}-seed{self.seed}-{key}"
        return name, self.trainer.train(network, name, self.seed, steps)
