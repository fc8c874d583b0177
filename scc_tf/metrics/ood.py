"""How well a classifier's confidence tells known inputs from those of another world (out-of-distribution, OOD).

A score says how much an input looks like one of the distribution that the model was trained for. In all of this module
larger scores mean *in* distribution, and *in* is positive: a true positive is a test input that is accepted, a false
positive an OOD input that is accepted. An accuracy or a calibration error on OOD inputs means nothing: no answer is
right there.

Shapes: ``N`` examples, ``K`` classes. All rates are fractions in [0, 1].
"""

import dataclasses

import numpy as np
from scipy import special

from scc_tf.arguments import check_choice
from scc_tf.metrics.probabilities import checked_logits, normalized_entropy, softmax

__all__ = ["KINDS", "OODReport", "OODScores", "ood_report", "ood_scores"]

KINDS = ("probability", "entropy", "energy")


@dataclasses.dataclass(frozen=True)
class OODScores:
    """How well one score separates; what chance gives stands behind each.

    Attributes:
        auroc: chance that a test input scores higher than an OOD input, ties count half. 0.5.
        aupr_in: average precision with *in* as the positive class. The share of the test inputs among all.
        aupr_out: average precision with *out* as the positive class, scores negated. The share of the OOD inputs.
        fpr95: share of the OOD inputs that are accepted where at least 95 % of the test inputs are. 0.95.
    """

    auroc: float
    aupr_in: float
    aupr_out: float
    fpr95: float


@dataclasses.dataclass(frozen=True)
class OODReport:
    """All scores for one model and one pair of sets.

    Attributes:
        scores: ``{kind: OODScores}``, one for each of `KINDS` that was asked for.
        confidence_in: mean probability of the most likely class over the test inputs.
        confidence_out: the same over the OOD inputs.
    """

    scores: dict
    confidence_in: float
    confidence_out: float

    @property
    def confidence_shift(self):
        """How much less sure the model is outside: ``confidence_in - confidence_out``, from -1 to 1."""
        return self.confidence_in - self.confidence_out


def ood_scores(logits, kind):
    """One score per example, float64 ``(N,)``, larger for what looks like the training distribution.

    ``"probability"``  ``max_k p_k``, in [1/K, 1]. Equal for all whose probability rounds to 1 in float64.

    ``"entropy"``      ``-H(p) / log K``, in [-1, 0]: the normalized entropy, negated.

    ``"energy"``       ``log sum_k exp(z_k)``, unbounded: the energy at temperature 1, negated. It needs logits, since
    every set of probabilities has the same energy.

    Args:
        logits: float ``(N, K)``, ``K >= 2``.
        kind: one of `KINDS`.

    Raises:
        ValueError: if the logits have another shape or are not finite, or there is no such kind.

    Source: Hendrycks & Gimpel 2017, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples"
        (arXiv 1610.02136); Liu et al. 2020, "Energy-based Out-of-distribution Detection" (arXiv 2010.03759).

    Example:
        >>> ood_scores([[0.0, 0.0], [0.0, 9.0]], "probability").round(3).tolist()
        [0.5, 1.0]
    """
    logits = checked_logits(logits)
    check_choice("kind", kind, KINDS)
    if kind == "energy":
        return special.logsumexp(logits, axis=1)
    probabilities = softmax(logits)
    return probabilities.max(axis=1) if kind == "probability" else -normalized_entropy(probabilities)


def ood_report(in_logits, out_logits, kinds=KINDS):
    """Measure how well a model tells test inputs from OOD inputs; returns `OODReport`.

    Args:
        in_logits: float ``(N, K)``, of test inputs of the training distribution.
        out_logits: float ``(M, K)``, of inputs of another one.
        kinds: which of `KINDS`.

    Raises:
        ValueError: as `ood_scores`, or if the two differ in the number of classes.

    Source: as `ood_scores`; FPR at 95 % TPR: Liang et al. 2018, "Enhancing the Reliability of Out-of-distribution Image
        Detection in Neural Networks" (arXiv 1706.02690).

    Example:
        >>> report = ood_report([[9.0, 0.0], [0.0, 8.0]], [[1.0, 0.0], [0.0, 0.0]])
        >>> report.scores["energy"].auroc, round(report.confidence_shift, 2)
        (1.0, 0.38)
    """
    in_logits, out_logits = checked_logits(in_logits, "in_logits"), checked_logits(out_logits, "out_logits")
    for kind in kinds if isinstance(kinds, tuple | list) else [kinds]:
        check_choice("kinds", kind, KINDS)
    if in_logits.shape[1] != out_logits.shape[1]:
        raise ValueError(
            "Expected in_logits and out_logits of the same classes. "
            f"Received: shapes {in_logits.shape} and {out_logits.shape}"
        )
    confidences = (float(softmax(logits).max(axis=1).mean()) for logits in (in_logits, out_logits))
    scores = {kind: _separation(ood_scores(in_logits, kind), ood_scores(out_logits, kind)) for kind in kinds}
    return OODReport(scores, *confidences)


def _separation(inside, outside):
    from sklearn import metrics  # imported late: `import scc_tf` stays cheap

    scores = np.concatenate([inside, outside])
    is_in = np.arange(len(scores)) < len(inside)
    false_positives, true_positives, _ = metrics.roc_curve(is_in, scores, drop_intermediate=False)
    return OODScores(
        auroc=float(metrics.roc_auc_score(is_in, scores)),
        aupr_in=float(metrics.average_precision_score(is_in, scores)),
        aupr_out=float(metrics.average_precision_score(~is_in, -scores)),
        fpr95=float(false_positives[np.argmax(true_positives >= 0.95)]),
    )
