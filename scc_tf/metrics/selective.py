"""How often a classifier errs if it may stay silent where it is not sure.

Shapes: ``N`` examples, ``K`` classes. Risks and coverages are fractions in [0, 1].
"""

from typing import NamedTuple

import numpy as np

from scc_tf.metrics.probabilities import checked_labels, checked_probabilities

__all__ = ["RiskCoverage", "risk_coverage"]


class RiskCoverage(NamedTuple):
    """Risk as a function of coverage; the last point is the whole set."""

    coverage: np.ndarray  # (N,): n / N, the share of examples that are answered
    risk: np.ndarray  # (N,): share of wrong answers among the n surest
    area: float  # under the curve: the mean of ``risk`` (AURC)


def risk_coverage(probabilities, labels):
    """Answer the ``n`` surest examples only, for every ``n``: how many of the answers are wrong?

    The sureness is the probability of the most likely class. Examples of equal probability share their errors evenly,
    so that the curve does not depend on the order in which they come. Two things make the area small: few errors, and
    errors that are the least sure answers.

    Args:
        probabilities: float ``(N, K)``, rows sum to 1.
        labels: int ``(N,)`` in ``[0, K)``.

    Returns:
        `RiskCoverage`.

    Raises:
        ValueError: if the shapes do not fit, a row is not a distribution, or a label is out of range.

    Source: El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification"; the area: Geifman,
        Uziel & El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers" (arXiv 1805.08206).

    Example:
        >>> curve = risk_coverage([[0.9, 0.1], [0.6, 0.4]], [0, 1])
        >>> curve.risk.tolist(), curve.area
        ([0.0, 0.5], 0.25)
    """
    probabilities = checked_probabilities(probabilities)
    wrong = probabilities.argmax(axis=1) != checked_labels(labels, probabilities)
    levels, level_of = np.unique(-probabilities.max(axis=1), return_inverse=True)  # the surest first
    count = np.bincount(level_of, minlength=len(levels))
    share = np.bincount(level_of, wrong, len(levels)) / count
    answered = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(np.repeat(share, count)) / answered
    return RiskCoverage(answered / len(wrong), np.minimum(risk, 1.0), float(risk.mean()))
