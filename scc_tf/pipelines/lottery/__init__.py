"""Lottery tickets: prune by several protocols, train again, and ask how accurate and how honest what is left is.

Trainings are cached in the work folder under a hash of the settings that they depend on; an interrupted one goes on
from its last epoch. The validation split stops trainings and fits temperatures; the test split chooses nothing.
"""

import keras
from absl import logging

from scc_tf.pipelines.lottery import tasks
from scc_tf.pipelines.lottery.config import PRESETS, PROTOCOLS, STRUCTURES, Config
from scc_tf.pipelines.lottery.protocols import Lottery
from scc_tf.pipelines.lottery.subnetworks import parameter_count, widths
from scc_tf.pipelines.lottery.training import Trainer
from scc_tf.pipelines.settings import provenance

__all__ = ["PRESETS", "PROTOCOLS", "STRUCTURES", "Config", "run"]


def run(config, work_dir, verbose=1):
    """Train, prune and measure, for every seed, protocol and ratio.

    Args:
        config: `Config`.
        work_dir: folder (`pathlib.Path`) of the cached stages.
        verbose: as in ``fit``.

    Returns:
        Plain JSON: ``config``, ``versions``, and ``rows``, per seed one of the protocol "dense" with ratio 0 and one
        for every other protocol and ratio. A row has ``seed``, ``protocol``, ``ratio``; ``epochs`` to the lowest
        validation loss and ``epochs_run`` until the training stopped, both of the last training, and ``epochs_in_all``,
        run by all trainings that led to the network, the dense one's among them; ``seconds`` likewise;
        ``validation_loss``; ``parameters`` that are left, ``sparsity``, the fraction of the dense network's parameters
        that is gone, ``channels`` by layer; and the values of `scc_tf.pipelines.lottery.measures.measure`.
    """
    keras.utils.set_random_seed(config.seed)
    data, ood_images = tasks.load(config)
    trainer = Trainer(config, data, ood_images, work_dir, verbose)
    rows = []
    for seed in config.seeds:
        lottery = Lottery(trainer, seed)
        whole = parameter_count(lottery.dense)

        def add_row(protocol, ratio, network, name, records, *, seed=seed, whole=whole):
            parameters = parameter_count(network)
            last = records[-1]
            rows.append(
                {
                    "seed": seed,
                    "protocol": protocol,
                    "ratio": ratio,
                    "epochs": last["best_epoch"],
                    "epochs_run": last["epochs_run"],
                    "epochs_in_all": sum(record["epochs_run"] for record in records),
                    "seconds": sum(record["seconds"] for record in records),
                    "validation_loss": last["validation_loss"],
                    "parameters": parameters,
                    "sparsity": 1 - parameters / whole,
                    "channels": widths(network),
                    **trainer.measured(network, name),
                }
            )
            logging.info("seed %d, %s, %g: %.4f", seed, protocol, ratio, rows[-1]["test_accuracy"])

        add_row("dense", 0.0, lottery.dense, lottery.dense_name, [lottery.dense_record])
        for ratio in config.pruned_ratios:
            for protocol in config.protocols.split(","):
                network, name, records = lottery.prune(protocol, ratio)
                add_row(protocol, ratio, network, name, [lottery.dense_record, *records])
    return {**provenance(config), "rows": rows}
