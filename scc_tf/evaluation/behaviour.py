"""How good one classifier's answers and its confidence are, on the test set and outside its distribution."""

import dataclasses

import numpy as np

from scc_tf import metrics

__all__ = ["Behaviour", "Curves", "measure_behaviour", "measure_curves"]

HISTOGRAM_BINS = 20
CURVE_POINTS = 200


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """Numbers of one model; rates and errors are fractions. See `scc_tf.metrics` for each.

    Attributes:
        accuracy: fraction of right answers on the test split.
        negative_log_likelihood: nats per example.
        brier_score: from 0 to 2.
        expected_calibration_error: ECE, bins of equal width.
        expected_calibration_error_mass: ECE, bins of equal mass.
        maximum_calibration_error: MCE, the bin with the largest gap.
        uncertainty_calibration_error: UCE.
        temperature: what makes the validation split most likely; above 1 the model was too sure.
        scaled_calibration_error: ECE on the test split after scaling with this temperature.
        scaled_negative_log_likelihood: the same for the likelihood.
        risk_coverage_area: AURC.
    """

    accuracy: float
    negative_log_likelihood: float
    brier_score: float
    expected_calibration_error: float
    expected_calibration_error_mass: float
    maximum_calibration_error: float
    uncertainty_calibration_error: float
    temperature: float
    scaled_calibration_error: float
    scaled_negative_log_likelihood: float
    risk_coverage_area: float


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """What the figure shows of one model.

    Attributes:
        reliability: `scc_tf.metrics.ReliabilityBins` of equal width.
        confidence_edges: ``(21,)``, edges of the histograms of the highest probability.
        confidence_in: ``(20,)``, share of the test set in each.
        confidence_out: ``(20,)``, share of the OOD set; None without any.
        coverage, risk: ``(P,)``, the risk-coverage curve at up to 200 points.
        example_probabilities: ``(E, K)`` of single OOD inputs; None without any.
    """

    reliability: metrics.ReliabilityBins
    confidence_edges: np.ndarray
    confidence_in: np.ndarray
    confidence_out: np.ndarray | None
    coverage: np.ndarray
    risk: np.ndarray
    example_probabilities: np.ndarray | None


def measure_behaviour(outputs, validation_labels, test_labels, bins):
    """`Behaviour` by the `ClassifierOutputs` of the sets ``"validation"`` and ``"test"``; ``bins`` are of ECE and such.

    Raises:
        ValueError: if labels, int ``(N,)``, do not fit, or ``bins`` is no positive int.
    """
    temperature = metrics.fit_temperature(outputs.logits["validation"], validation_labels)
    plain, scaled = ((outputs.probabilities("test", t), test_labels) for t in (1.0, temperature))
    return Behaviour(
        accuracy=metrics.accuracy(*plain),
        negative_log_likelihood=metrics.negative_log_likelihood(*plain),
        brier_score=metrics.brier_score(*plain),
        expected_calibration_error=metrics.expected_calibration_error(*plain, bins),
        expected_calibration_error_mass=metrics.expected_calibration_error(*plain, bins, "mass"),
        maximum_calibration_error=metrics.maximum_calibration_error(*plain, bins),
        uncertainty_calibration_error=metrics.uncertainty_calibration_error(*plain, bins),
        temperature=temperature,
        scaled_calibration_error=metrics.expected_calibration_error(*scaled, bins),
        scaled_negative_log_likelihood=metrics.negative_log_likelihood(*scaled),
        risk_coverage_area=metrics.risk_coverage(*plain).area,
    )


def measure_curves(outputs, test_labels, bins, examples):
    """`Curves` by the outputs of the set ``"test"``, and of ``"out"`` where there is one, of which are the examples."""
    inside = outputs.probabilities("test")
    outside = outputs.probabilities("out") if "out" in outputs.logits else None
    coverage, risk, _ = metrics.risk_coverage(inside, test_labels)
    points = np.unique(np.linspace(0, len(risk) - 1, CURVE_POINTS).round().astype(int))
    return Curves(
        reliability=metrics.reliability_bins(inside, test_labels, bins),
        confidence_edges=np.linspace(0, 1, HISTOGRAM_BINS + 1),
        confidence_in=_histogram(inside),
        confidence_out=None if outside is None else _histogram(outside),
        coverage=coverage[points],
        risk=risk[points],
        example_probabilities=None if outside is None else outside[examples],
    )


def _histogram(probabilities):
    return np.histogram(probabilities.max(axis=1), HISTOGRAM_BINS, (0, 1))[0] / len(probabilities)
