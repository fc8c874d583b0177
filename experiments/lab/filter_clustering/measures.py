"""What a network is worth: accuracy, what it says of each class, parameters and work."""

import numpy as np

from lab.class_report import class_report
from scc_tf.evaluation.outputs import classifier_outputs
from scc_tf.flops import count_operations, count_trainable

__all__ = ["measure"]


def measure(network, data):
    """Measure a network; validation and test are each looked at once.

    Args:
        network: Keras model of logits.
        data: `scc_tf.datasets.Dataset`.

    Returns:
        Plain JSON: ``parameters`` (trainable ones) and ``multiply_accumulates``; fractions ``validation_accuracy``,
        ``test_accuracy``, and ``classes``, the `lab.class_report.class_report` on test.
    """
    images = {name: getattr(data, name).images for name in ("validation", "test")}
    answers = {name: logits.argmax(axis=1) for name, logits in classifier_outputs(network, images).logits.items()}
    return {
        "parameters": count_trainable(network),
        "multiply_accumulates": count_operations(network).multiply_accumulates,
        "validation_accuracy": float(np.mean(answers["validation"] == data.validation.labels)),
        "test_accuracy": float(np.mean(answers["test"] == data.test.labels)),
        "classes": class_report(answers["test"], data.test.labels, data.class_names),
    }
