"""From logits to class probabilities, and what every metric asks of them.

Shapes: ``N`` examples, ``K`` classes, at least two. All arithmetic is in float64.
"""

import numpy as np
from scipy import special

from scc_tf.arguments import check_array, check_number, received

__all__ = ["checked_labels", "checked_logits", "checked_probabilities", "log_softmax", "normalized_entropy", "softmax"]

ROW_TOLERANCE = 1e-3  # float16 probabilities of 1000 classes sum to 1 within it


def softmax(logits, temperature=1.0):
    """Class probabilities of logits: ``exp(z_k / T) / sum_j exp(z_j / T)``, float64 ``(N, K)``, rows sum to 1.

    Args:
        logits: float ``(N, K)``.
        temperature: ``T > 0``; above 1 it makes every answer less sure, and changes none of them.

    Raises:
        ValueError: if the logits have another shape or are not finite, or the temperature is not positive and finite.

    Example:
        >>> softmax([[0.0, np.log(3.0)]]).round(2).tolist()
        [[0.25, 0.75]]
    """
    return np.exp(log_softmax(logits, temperature))


def log_softmax(logits, temperature=1.0):
    """Logarithms of `softmax`, exact also where the probabilities are too small for a float64.

    Example:
        >>> log_softmax([[0.0, 1000.0]]).tolist()
        [[-1000.0, 0.0]]
    """
    check_number("temperature", temperature, above=0)
    return special.log_softmax(checked_logits(logits) / temperature, axis=1)


def normalized_entropy(probabilities):
    """How uncertain each answer is: ``-sum_k p_k log p_k / log K``, float64 ``(N,)``.

    0 for one sure class, 1 where all classes are equally likely.

    Args:
        probabilities: float ``(N, K)``, rows sum to 1.

    Raises:
        ValueError: if a row is not a distribution.

    Source: Laves et al. 2019, "Well-calibrated Model Uncertainty with Temperature Scaling for Dropout Variational
        Inference" (arXiv 1909.13550).

    Example:
        >>> normalized_entropy([[0.5, 0.5], [0.0, 1.0]]).tolist()
        [1.0, 0.0]
    """
    probabilities = checked_probabilities(probabilities)
    entropy = special.entr(probabilities).sum(axis=1) / np.log(probabilities.shape[1])
    return np.clip(entropy, 0.0, 1.0)  # rounding


def checked_logits(logits, name="logits"):
    """Logits as float64 ``(N, K)``; a ValueError if they have another shape, no row or are not finite."""
    array = check_array(name, logits)
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(f"Expected {name} (N, K) of two classes at least. {received(name, array)}")
    return array.astype(np.float64)


def checked_probabilities(probabilities):
    """The same of probabilities, as they are; each row must sum to 1 within 0.001, and nothing be negative."""
    probabilities = checked_logits(probabilities, "probabilities")
    sums = probabilities.sum(axis=1)
    if probabilities.min() < 0 or np.abs(sums - 1).max() > ROW_TOLERANCE:
        raise ValueError(
            "Expected softmax probabilities, no logits: every row is not negative and sums to 1. "
            f"Received: values from {probabilities.min():g}, sums from {sums.min():g} to {sums.max():g}"
        )
    return probabilities


def checked_labels(labels, like):
    """Labels as int64 ``(N,)``; a ValueError if they are no whole numbers in [0, K), one for each row of ``like``."""
    labels = check_array("labels", labels)
    if labels.shape != like.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"Expected {len(like)} integer labels, shape ({len(like)},). {received('labels', labels)}")
    if labels.min() < 0 or labels.max() >= like.shape[1]:
        raise ValueError(
            f"Expected labels in [0, {like.shape[1]}). Received: labels from {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int64)
