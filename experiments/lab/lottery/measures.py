"""What a network is worth: accuracy, calibration, and how it takes what is out of distribution."""

import dataclasses

from scc_tf import metrics
from scc_tf.evaluation.outputs import classifier_outputs

__all__ = ["VERSION", "measure"]

VERSION = 3  # of the values: what was cached by an earlier one is measured again


def measure(network, data, ood_images=None):
    """Measure a network on test; the temperature is fitted on validation.

    Args:
        network: Keras model of logits.
        data: `scc_tf.datasets.Dataset`.
        ood_images: ``(M, ...)``, or None.

    Returns:
        Plain JSON of fractions: ``validation_accuracy`` and ``test_accuracy``; ``nll`` (nats), ``brier``, ``ece_10``
        and ``ece_15`` (bins of equal width), ``ece_mass_10`` and ``ece_mass_15`` (of equal mass), ``mce``, ``uce``,
        ``confidence`` (mean of the top class); ``aurc``, the area under risk against coverage; ``temperature``, and
        ``nll_scaled``, ``ece_15_scaled`` and ``uce_scaled`` with it. With OOD images, ``ood``: ``{score: {"auroc",
        "aupr_in", "aupr_out", "fpr95"}}`` and ``confidence_ood``.
    """
    images = {"validation": data.validation.images, "test": data.test.images}
    if ood_images is not None:
        images["out"] = ood_images
    logits = classifier_outputs(network, images).logits
    validation, test = logits["validation"], logits["test"]
    labels, probabilities = data.test.labels, metrics.softmax(test)
    temperature = metrics.fit_temperature(validation, data.validation.labels)
    scaled = metrics.softmax(test, temperature)
    values = {
        "validation_accuracy": metrics.accuracy(metrics.softmax(validation), data.validation.labels),
        "test_accuracy": metrics.accuracy(probabilities, labels),
        "nll": metrics.negative_log_likelihood(probabilities, labels),
        "brier": metrics.brier_score(probabilities, labels),
        "ece_10": metrics.expected_calibration_error(probabilities, labels, bins=10),
        "ece_15": metrics.expected_calibration_error(probabilities, labels, bins=15),
        "ece_mass_10": metrics.expected_calibration_error(probabilities, labels, bins=10, scheme="mass"),
        "ece_mass_15": metrics.expected_calibration_error(probabilities, labels, bins=15, scheme="mass"),
        "mce": metrics.maximum_calibration_error(probabilities, labels, bins=15),
        "uce": metrics.uncertainty_calibration_error(probabilities, labels, bins=15),
        "confidence": probabilities.max(axis=1).mean(),
        "aurc": metrics.risk_coverage(probabilities, labels).area,
        "temperature": temperature,
        "nll_scaled": metrics.negative_log_likelihood(scaled, labels),
        "ece_15_scaled": metrics.expected_calibration_error(scaled, labels, bins=15),
        "uce_scaled": metrics.uncertainty_calibration_error(scaled, labels, bins=15),
    }
    values = {name: float(value) for name, value in values.items()}
    if ood_images is None:
        return values
    report = metrics.ood_report(test, logits["out"])
    scores = {kind: dataclasses.asdict(score) for kind, score in report.scores.items()}
    return {**values, "ood": scores, "confidence_ood": report.confidence_out}
