"""Deep Compression: train, prune in rounds, share weights, code. The paper's three stages, and what each is worth.

Stages are cached in the work folder under a hash of the settings that they depend on; an interrupted one goes on from
its last epoch. Settings were chosen by the error on validation; every network is scored on test once, when it is
finished, and nothing is chosen by that.

Source: Han, Mao & Dally 2016, "Deep Compression" (arXiv 1510.00149); Han et al. 2015, "Learning both Weights and
Connections for Efficient Neural Networks" (arXiv 1506.02626).
"""

import dataclasses

import keras
from absl import logging

from lab import datasets
from lab.deep_compression.config import PRESETS, Config
from lab.deep_compression.paper import COLUMNS, PAPER
from lab.deep_compression.rates import huffman_parts, layer_rates
from lab.deep_compression.stages import (
    Trainer,
    float_network,
    pruned_networks,
    shared_network,
    weights_by_layer,
)
from lab.settings import provenance
from scc_tf.conversion import to_plain
from scc_tf.export.packed import packed_report

__all__ = ["COLUMNS", "PAPER", "PRESETS", "Config", "run"]

QUANTIZED = (2, 3, 4, 6, 8, 16, 32)  # clusters of the networks that are quantized alone
_FEWER = {"resnet20": (16,)}  # a minute each
_DATA = {"resnet20": "cifar10"}


def run(config, work_dir, compare=True, verbose=1):
    """Compress one network.

    Args:
        config: `Config`.
        work_dir: folder (`pathlib.Path`) of the cached stages.
        compare: whether to make the points of the comparison too: after every round the pruned network with and
            without shared weights (after the last one the final network), and the float network with shared weights
            alone.
        verbose: as in ``fit``.

    Returns:
        ``(record, compressed network)``. The record is plain JSON: ``config``; ``float`` and ``final``; ``rates``, the
        columns of the paper's tables 2 and 3; ``parts``, the bytes of either file; ``points`` of the comparison, if
        any, each with ``stages`` ("pruning", "sharing" or "both"). Errors are per cent. ``seconds`` are those of the
        trainings that led to the final network, in all sessions.
    """
    keras.utils.set_random_seed(config.seed)
    data = datasets.load(_DATA.get(config.model, "mnist"), config.data_dir or None)
    trainer = Trainer(config, data, work_dir, verbose)
    model, float_record = float_network(trainer)
    float32_bytes = 4 * model.count_params()
    points, seconds = [], float_record["seconds"]

    def add_point(stages, network, record):
        size = packed_report(network)
        points.append({"stages": stages, "stored_bytes": size.stored_bytes, **record})
        logging.info("%s: %s", stages, points[-1])

    for number, (pruned, record) in enumerate(pruned_networks(trainer, model), start=1):
        seconds += record["seconds"]
        if compare:
            add_point("pruning", pruned, record)
        if compare and number < config.rounds:
            shared, tuned = shared_network(trainer, pruned, f"round{number}", config.clusters, config.tune_steps)
            add_point("both", shared, {"density": record["density"], **tuned})
    final, tuned = shared_network(trainer, pruned, "final", config.clusters, config.last_tune_steps)
    if compare:
        add_point("both", final, {"density": record["density"], **tuned})
    for clusters in _FEWER.get(config.model, QUANTIZED) if compare else ():
        add_point("sharing", *shared_network(trainer, model, "float", clusters, config.tune_steps, pruned=False))
    file = packed_report(final)
    parts = {"range": dataclasses.asdict(file) | {"table_bytes": 0}, "huffman": huffman_parts(final, file)}
    return {
        **provenance(config),
        "seconds": seconds + tuned["seconds"],
        "float": {"float32_bytes": float32_bytes, **float_record},
        "final": {
            **tuned,
            "density": record["density"],
            "pruned_validation_error": record["validation_error"],
            "pruned_test_error": record["test_error"],
            "parameters": to_plain(final).count_params(),
            "stored_bytes": file.stored_bytes,
            "huffman_bytes": parts["huffman"]["stored_bytes"],
            "ratio": float32_bytes / file.stored_bytes,
            "huffman_ratio": float32_bytes / parts["huffman"]["stored_bytes"],
        },
        "rates": layer_rates(final, weights_by_layer(model), file),
        "parts": parts,
        "points": points,
    }, final
