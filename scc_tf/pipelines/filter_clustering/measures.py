"""What a network is worth: accuracy, what it says of each class, parameters and work."""

import keras
import numpy as np

from scc_tf.flops import count_operations, count_trainable
from scc_tf.pipelines.class_report import class_report

__all__ = ["classes_of", "measure"]

_BATCH_SIZE = 500
_COLUMNS = {"precision": "precision", "recall": "recall", "f1": "f1-score"}


def measure(network, data):
    """Measure a network; validation and test are each looked at once.

    Args:
        network: Keras model of logits.
        data: `scc_tf.datasets.Dataset`.

    Returns:
        Plain JSON: ``parameters`` (trainable ones) and ``multiply_accumulates``; fractions ``validation_accuracy``,
        ``test_accuracy``, and ``classes``, ``{name: {"precision", "recall", "f1"}}`` on test.
    """
    validation, test = (classes_of(network, split.images) for split in (data.validation, data.test))
    report = class_report(test, data.test.labels, data.class_names)
    return {
        "parameters": count_trainable(network),
        "multiply_accumulates": count_operations(network).multiply_accumulates,
        "validation_accuracy": float(np.mean(validation == data.validation.labels)),
        "test_accuracy": float(np.mean(test == data.test.labels)),
        "classes": {name: {ours: row[theirs] for ours, theirs in _COLUMNS.items()} for name, row in report.items()},
    }


def classes_of(network, images):
    """The class that a network takes each image for, int ``(N,)``."""
    parts = [
        network(images[start : start + _BATCH_SIZE], training=False) for start in range(0, len(images), _BATCH_SIZE)
    ]
    return np.concatenate([keras.ops.convert_to_numpy(part).argmax(axis=-1) for part in parts])
