"""How many of the examples that must not get worse a model gets right."""

import numpy as np

from scc_tf.inference import outputs

__all__ = ["right_answers", "safety_accuracy"]


def safety_accuracy(model, safety_set, batch_size=None):
    """Accuracy on a safety set, in inference mode.

    Args:
        model: Keras classifier with outputs ``(N, K)``, ``K > 1``.
        safety_set: `scc_tf.SafetySet`, or anything with ``images`` and ``labels`` (``(S,)`` or ``(S, 1)``).
        batch_size: examples per forward pass; None: as many as memory allows, see `scc_tf.inference.batch_for`.

    Returns:
        The fraction of right answers, in [0, 1].

    Raises:
        ValueError: if the model has one output only.
    """
    if model.output_shape[-1] == 1:
        raise ValueError(f"Expected one output per class. Received: output_shape={model.output_shape}")
    return right_answers(outputs(model, safety_set.images, batch_size), safety_set.labels)


def right_answers(answers, labels):
    """Fraction of answers that are right, whoever gave them: a Keras model, or a file that an interpreter ran.

    Args:
        answers: array ``(S, K)``, one score per class.
        labels: integers ``(S,)`` or ``(S, 1)``.
    """
    return float((answers.argmax(-1) == np.reshape(labels, -1)).mean())
