"""How good a classifier's answers and its confidence are, on plain arrays."""

from scc_tf.metrics.calibration import (
    SCHEMES,
    ReliabilityBins,
    accuracy,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability_bins,
    uncertainty_calibration_error,
)
from scc_tf.metrics.ood import KINDS, OODReport, OODScores, ood_report, ood_scores
from scc_tf.metrics.probabilities import log_softmax, normalized_entropy, softmax
from scc_tf.metrics.selective import RiskCoverage, risk_coverage

__all__ = [
    "KINDS",
    "SCHEMES",
    "OODReport",
    "OODScores",
    "ReliabilityBins",
    "RiskCoverage",
    "accuracy",
    "brier_score",
    "expected_calibration_error",
    "fit_temperature",
    "log_softmax",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "normalized_entropy",
    "ood_report",
    "ood_scores",
    "reliability_bins",
    "risk_coverage",
    "softmax",
    "uncertainty_calibration_error",
]
