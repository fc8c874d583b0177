"""How often a classifier is right, and how well its confidence matches that.

Every function takes ``probabilities``, float ``(N, K)`` whose rows sum to 1, and ``labels``, int ``(N,)`` in [0, K);
it raises ValueError if they are none. Shapes: ``N`` examples, ``K`` classes, ``B`` bins. Confidences, accuracies and
errors are fractions in [0, 1], never percentages. All arithmetic is in float64.

Bins are closed above: bin ``j`` holds what lies in ``(edge_j, edge_{j+1}]``, and the first one includes its lower
edge. Equal values are always in the same bin, so no result depends on the order of the examples.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize

from scc_tf.arguments import check_choice, check_count
from scc_tf.metrics.probabilities import (
    checked_labels,
    checked_logits,
    checked_probabilities,
    log_softmax,
    normalized_entropy,
)

__all__ = [
    "SCHEMES",
    "ReliabilityBins",
    "accuracy",
    "brier_score",
    "expected_calibration_error",
    "fit_temperature",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "reliability_bins",
    "uncertainty_calibration_error",
]

SCHEMES = ("width", "mass")
TEMPERATURES = (0.01, 100.0)  # what `fit_temperature` may return


class ReliabilityBins(NamedTuple):
    """What a reliability diagram shows; empty bins have zeros."""

    confidence: np.ndarray  # (B,) mean confidence in the bin
    accuracy: np.ndarray  # (B,) fraction of right answers in the bin
    weight: np.ndarray  # (B,) fraction of all examples that fall in the bin; sums to 1
    edges: np.ndarray  # (B + 1,) from 0 to 1


def accuracy(probabilities, labels):
    """Fraction of right answers, float; of equally likely classes the first is the answer. Logits give the same.

    Example:
        >>> accuracy([[0.9, 0.1], [0.6, 0.4]], [0, 1])
        0.5
    """
    probabilities = checked_logits(probabilities, "probabilities")
    return float(np.mean(probabilities.argmax(axis=1) == checked_labels(labels, probabilities)))


def negative_log_likelihood(probabilities, labels):
    """Mean surprise at the right class, float, nats (NLL, log loss): ``-mean_n log p_n[label_n]``.

    A probability of 0 counts as the smallest normal float64, 2.2e-308, so the result is finite: at most 708.4.

    Example:
        >>> round(negative_log_likelihood([[0.25, 0.75]], [1]), 4)
        0.2877
    """
    probabilities = checked_probabilities(probabilities)
    right = probabilities[np.arange(len(probabilities)), checked_labels(labels, probabilities)]
    surprise = -np.log(np.clip(right, np.finfo(np.float64).tiny, 1.0))
    return float(np.mean(surprise)) + 0.0  # no -0.0


def brier_score(probabilities, labels):
    """Mean squared distance to the right answer, float: ``mean_n sum_k (p_n[k] - [k == label_n])^2``.

    From 0 to 2, the original scale; for two classes some halve it.

    Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability".

    Example:
        >>> brier_score([[0.5, 0.5], [1.0, 0.0]], [0, 0])
        0.25
    """
    probabilities = checked_probabilities(probabilities)
    truth = np.eye(probabilities.shape[1])[checked_labels(labels, probabilities)]
    return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))


def reliability_bins(probabilities, labels, bins=15, scheme="width"):
    """Sort answers into bins by their confidence, the probability of the most likely class.

    Args:
        probabilities: float ``(N, K)``.
        labels: int ``(N,)``.
        bins: ``B``, at least 1. Guo et al. use 15.
        scheme: ``"width"``: edges at ``j / B``. ``"mass"``: edges at the quantiles of the confidences, so that each bin
            holds ``N / B`` examples, rounded; where equal confidences fall on an edge, the lower bin has them all.

    Returns:
        `ReliabilityBins`.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2 (arXiv 1706.04599); equal mass:
        Nixon et al. 2019, "Measuring Calibration in Deep Learning" (arXiv 1904.01685).

    Example:
        >>> reliability_bins([[0.8, 0.2], [0.6, 0.4]], [0, 1], bins=2).weight.tolist()
        [0.0, 1.0]
    """
    probabilities = checked_probabilities(probabilities)
    right = probabilities.argmax(axis=1) == checked_labels(labels, probabilities)
    confidence = np.minimum(probabilities.max(axis=1), 1.0)
    edges = _edges(confidence, bins, scheme)
    return ReliabilityBins(*_bin_means(edges, confidence, right), edges)


def expected_calibration_error(probabilities, labels, bins=15, scheme="width"):
    """Mean gap between confidence and accuracy (ECE), float: ``sum_j weight_j * |accuracy_j - confidence_j|``.

    ``bins`` and ``scheme`` are those of `reliability_bins`.

    Source: Guo et al. 2017, eq. 3 (arXiv 1706.04599).

    Example:
        >>> round(expected_calibration_error([[0.8, 0.2], [0.6, 0.4]], [0, 1], bins=2), 4)
        0.2
    """
    found = reliability_bins(probabilities, labels, bins, scheme)
    return float(np.sum(found.weight * np.abs(found.accuracy - found.confidence)))


def maximum_calibration_error(probabilities, labels, bins=15, scheme="width"):
    """Largest gap between confidence and accuracy (MCE), float: ``max_j |accuracy_j - confidence_j|``.

    ``bins`` and ``scheme`` are those of `reliability_bins`. A bin with one example counts like any other, so few
    examples or many bins make this number large.

    Source: Guo et al. 2017, eq. 5 (arXiv 1706.04599).

    Example:
        >>> round(maximum_calibration_error([[0.8, 0.2], [0.6, 0.4]], [0, 1], bins=10), 4)
        0.6
    """
    found = reliability_bins(probabilities, labels, bins, scheme)
    return float(np.max(np.abs(found.accuracy - found.confidence)))  # both 0 in an empty bin


def uncertainty_calibration_error(probabilities, labels, bins=15):
    """Mean gap between uncertainty and error (UCE), float: ``sum_j weight_j * |error_j - uncertainty_j|``.

    The uncertainty is the entropy over ``log K``, so all classes count, not only the most likely one; the bins, at
    least 1, are equally wide in it.

    Source: Laves et al. 2019, "Well-calibrated Model Uncertainty with Temperature Scaling for Dropout Variational
        Inference" (arXiv 1909.13550).

    Example:
        >>> uncertainty_calibration_error([[0.5, 0.5], [0.5, 0.5]], [0, 1])
        0.5
    """
    probabilities = checked_probabilities(probabilities)
    wrong = probabilities.argmax(axis=1) != checked_labels(labels, probabilities)
    uncertainty = normalized_entropy(probabilities)
    mean, error, weight = _bin_means(_edges(uncertainty, bins, "width"), uncertainty, wrong)
    return float(np.sum(weight * np.abs(error - mean)))


def fit_temperature(logits, labels):
    """The temperature ``T`` that makes ``softmax(logits / T)`` most likely; one number, no answer changes.

    Fit it on a validation split, never on the test split whose calibration is then measured. The likelihood has one
    maximum over ``T``, which a bounded search finds on a logarithmic scale.

    Args:
        logits: float ``(N, K)``, not probabilities.
        labels: int ``(N,)`` in ``[0, K)``.

    Returns:
        float in [0.01, 100]: far below 1 where every answer is right, so that no confidence is too high; near 100 where
        guessing would be better. 1 where no other temperature is better.

    Raises:
        ValueError: if the shapes do not fit, a logit is not finite, or a label is out of range.

    Source: Guo et al. 2017, section 4.2 (arXiv 1706.04599).

    Example:
        >>> round(fit_temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1]), 2)  # log 3 would be right
        1.82
    """
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)

    def loss(log_temperature):
        return -log_softmax(logits, np.exp(log_temperature))[np.arange(len(labels)), labels].mean()

    found = optimize.minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def _edges(values, bins, scheme):
    """Edges ``(B + 1,)`` of bins for values in [0, 1]."""
    check_count("bins", bins)
    check_choice("scheme", scheme, SCHEMES)
    if scheme == "width":
        return np.arange(bins + 1) / bins
    last = -(-len(values) * np.arange(1, bins) // bins) - 1  # of each bin but the topmost: ceil(N j / B), from 0
    return np.concatenate([[0.0], np.sort(values)[last], [1.0]])


def _bin_means(edges, values, events):
    """Mean value, share of events and share of examples of each bin, ``(B,)`` each."""
    bins = len(edges) - 1
    bin_of = np.searchsorted(edges[1:-1], values, side="left")
    count = np.bincount(bin_of, minlength=bins)
    sums = (np.bincount(bin_of, weights, bins) for weights in (values, events))
    return (*(total / np.maximum(count, 1) for total in sums), count / len(values))
