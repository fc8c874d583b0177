"""How many of the examples that must not get worse a model gets right."""

import numpy as np

__all__ = ["safety_accuracy"]


def safety_accuracy(model, safety_set, batch_size=500):
    """Accuracy on a safety set, in inference mode.

    Args:
        model: Keras classifier with outputs ``(N, K)``, ``K > 1``.
        safety_set: `scc_tf.SafetySet`, or anything with ``images`` and ``labels`` (``(S,)`` or ``(S, 1)``).
        batch_size: examples per forward pass.

    Returns:
        The fraction of right answers, in [0, 1].

    Raises:
        ValueError: if the model has one output only.
    """
    if model.output_shape[-1] == 1:
        raise ValueError(f"Expected one output per class. Received: output_shape={model.output_shape}")
    labels = np.reshape(safety_set.labels, -1)
    right = 0
    for start in range(0, len(labels), batch_size):
        batch = slice(start, start + batch_size)
        scores = np.asarray(model(safety_set.images[batch], training=False))
        right += int((scores.argmax(-1) == labels[batch]).sum())
    return right / len(labels)
