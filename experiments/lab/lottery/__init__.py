"""Lottery tickets: prune by several protocols, train again, and ask how accurate and how honest what is left is.

Trainings are cached in the work folder under a hash of the settings that they depend on; an interrupted one goes on
from its last epoch. The validation split stops trainings and fits temperatures; the test split chooses nothing.
"""

import dataclasses
import itertools
from pathlib import Path

import keras
from absl import logging

from lab.lottery import tasks
from lab.lottery.config import PRESETS, Config
from lab.lottery.protocols import Lottery
from lab.lottery.training import Trainer
from lab.settings import provenance
from scc_tf.flops import count_operations
from scc_tf.protocols.lottery import PROTOCOLS
from scc_tf.protocols.subnetworks import kernel_layers, parameter_count

__all__ = ["PRESETS", "PROTOCOLS", "Config", "run", "ticket"]


def run(config, work_dir, verbose=1):
    """Train, prune and measure, for every seed, protocol and ratio.

    Args:
        config: `Config`.
        work_dir: folder of the cached stages.
        verbose: as in ``fit``.

    Returns:
        Plain JSON: ``config``, ``versions``, ``seconds`` of all trainings, and ``rows``, per seed one of the protocol
        "dense" with ratio 0 and one for every other protocol and ratio. A row has ``seed``, ``protocol``, ``ratio``,
        and

        - of the last training, ``epochs`` to the lowest validation loss (after a rewind to an early step, those up to
          that step count, too), that ``validation_loss``, ``epochs_run`` until it stopped, and whether it was
          ``capped``, which is to say ended by the largest number of epochs; of all trainings that led to the network,
          the dense one's among them, ``epochs_in_all`` and ``seconds``;
        - ``parameters`` that are left, ``sparsity``, the fraction of the dense network's parameters that is gone,
          ``operations``, the multiply-accumulates of an example with weights that are left, and ``channels`` by layer;
        - the values of `lab.lottery.measures.measure`.

    Raises:
        ValueError: if ``rewind_steps`` is beyond where a dense network is best, or a cached stage is damaged.
        FloatingPointError: if the loss of a training is not finite.

    Example:
        >>> config = Config(model="moons_mlp", protocols="winning_ticket", ratios="0.6")
        >>> record = run(config, "work")                                        # doctest: +SKIP
        >>> [(row["protocol"], row["test_accuracy"]) for row in record["rows"]] # doctest: +SKIP
        [('dense', 0.987), ('winning_ticket', 0.973)]
    """
    task = tasks.load(config)
    trainer = Trainer(config, task.data, task.ood_images, Path(work_dir), verbose)
    points = [("dense", 0.0), *itertools.product(config.protocols.split(","), config.pruned_ratios)]
    rows, seconds = [], 0.0
    for seed in config.seeds:
        keras.utils.set_random_seed(seed)  # tf.data shuffles by this seed, too
        lottery = Lottery(trainer, seed, task)
        for protocol, ratio in points:
            network, name, trainings = lottery.prune(protocol, ratio)
            named = {"seed": seed, "protocol": protocol, "ratio": ratio}
            left = _left(network, lottery.dense)
            rows.append({**named, **_history(trainings, config.epochs), **left, **trainer.measured(network, name)})
            own = trainings if protocol == "dense" else trainings[1:]
            seconds += sum(training["seconds"] for training in own)
            logging.info("seed %d, %s, %g: %.4f on validation", *named.values(), rows[-1]["validation_accuracy"])
    return {**provenance(config), "seconds": seconds, "rows": rows}


def ticket(config, protocol, ratio, work_dir, verbose=1):
    """One pruned network of the first seed beside the dense one, trained as in `run` or loaded.

    Args:
        config: `Config`.
        protocol: one of `PROTOCOLS`.
        ratio: fraction to prune.
        work_dir: folder of the cached stages.
        verbose: as in ``fit``.

    Returns:
        ``(dense network, pruned network, data, OOD images or None)``, the data as the networks take them.

    Raises:
        ValueError: if there is no such protocol, ``ratio`` is not in [0, 1), or as `run`.
        FloatingPointError: as `run`.

    Example:
        >>> dense, small, data, _ = ticket(Config(), "iterative", 0.8, "work")  # doctest: +SKIP
        >>> print(scc_tf.evaluate_compression(dense, small, data))              # doctest: +SKIP
    """
    config = dataclasses.replace(config, protocols=protocol, ratios=repr(ratio))  # checks them
    keras.utils.set_random_seed(config.seed)
    task = tasks.load(config)
    trainer = Trainer(config, task.data, task.ood_images, Path(work_dir), verbose)
    lottery = Lottery(trainer, config.seed, task)
    network, _, _ = lottery.prune(protocol, ratio)
    return lottery.dense, network, task.data, task.ood_images


def _history(trainings, most_epochs):
    last = trainings[-1]
    return {
        "epochs": last["best_epoch"] + last.get("rewound_epochs", 0),
        "validation_loss": last["validation_loss"],
        "epochs_run": last["epochs_run"],
        "capped": last["epochs_run"] == most_epochs,
        "epochs_in_all": sum(training["epochs_run"] for training in trainings),
        "seconds": sum(training["seconds"] for training in trainings),
    }


def _left(network, dense):
    parameters = parameter_count(network)
    return {
        "parameters": parameters,
        "sparsity": 1 - parameters / parameter_count(dense),
        "operations": count_operations(network).nonzero_multiply_accumulates,
        "channels": {layer.name: int(layer.kernel.shape[-1]) for layer in kernel_layers(network)},
    }
