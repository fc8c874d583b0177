"""The main job: a float network, a safety set, and compression with and without the safety machinery.

Stages are cached in the work folder under a hash of the settings that they depend on; an interrupted one goes on
from its last epoch. Nothing is selected, stopped or restored on test: the test set is evaluated once per row.
"""

import time

import keras
from absl import logging

from lab import datasets
from lab.self_compression.config import MODES, NETWORK_SETTINGS, Config
from lab.self_compression.stages import compress, float_model, safety_set_of
from lab.settings import provenance
from scc_tf.safety import safety_accuracy

__all__ = [
    "MODES",
    "NETWORK_SETTINGS",
    "Config",
    "compress",
    "float_model",
    "restored_channels",
    "run",
    "safety_set_of",
]


def run(config, work_dir, verbose=1):
    """Run the main job.

    Args:
        config: `Config`.
        work_dir: folder (`pathlib.Path`) of the cached stages.
        verbose: as in ``fit``.

    Returns:
        ``(record, safety set, {row: compressed model})``. The record is plain JSON: the settings but ``data_dir``
        and ``float_file``, and under ``rows`` one record for ``float`` and for each of ``unsafe`` and ``safe`` that
        ``mode`` asks for. A ``float`` row of a file has its name, ``file``, and a short hash of
        its ``weights``; the others have ``safe``, whether what was finished keeps the contract, and
        ``safety_drop_points``.
    """
    started = time.monotonic()
    keras.utils.set_random_seed(config.seed)
    data = datasets.load(config.data_set, config.data_dir or None)
    model, float_record = float_model(config, data, work_dir, verbose)
    safety_set = safety_set_of(config, model, data, work_dir, verbose)
    bytes_float32 = 4 * model.count_params()
    rows = {
        "float": {
            **float_record,
            "safety_accuracy": safety_accuracy(model, safety_set),
            "size": {"float32_bytes": bytes_float32},
        }
    }
    compressed = {}
    for row in ("unsafe", "safe") if config.mode == "compare" else (config.mode,):
        logging.info("Compressing, %s", row)
        compressed[row], rows[row] = compress(config, row, model, safety_set, data, work_dir, verbose)
    record = {
        **provenance(config),
        "seconds": time.monotonic() - started,
        "rows": rows,
    }
    return record, safety_set, compressed


def restored_channels(record):
    """How many times a channel was restored in a row of the record; 0 for ``float``."""
    return sum(sum(event["restored"].values()) for event in record.get("events", ()))
