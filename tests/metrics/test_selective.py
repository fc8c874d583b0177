import numpy as np
import pytest
from random_answers import answers, for_all, random_answers

from scc_tf.metrics import accuracy, risk_coverage, softmax


def slow_risks(probabilities, labels):
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    return [wrong[:n].mean() for n in range(1, len(wrong) + 1)]


def test_the_curve_is_that_of_the_definition():
    logits, labels = random_answers()
    p = softmax(logits)
    curve = risk_coverage(p, labels)
    np.testing.assert_allclose(curve.risk, slow_risks(p, labels))
    assert curve.area == pytest.approx(np.mean(slow_risks(p, labels)))


def test_equal_confidences_share_their_errors():
    p = [[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]]
    for labels in ([0, 1, 0], [1, 0, 0]):
        np.testing.assert_allclose(risk_coverage(p, labels).risk, [0.5, 0.5, 1 / 3])


@for_all(answers())
def test_what_holds_for_all_answers(pair):
    logits, labels = pair
    p = softmax(logits)
    curve = risk_coverage(p, labels)
    assert curve.coverage[-1] == 1 and curve.risk[-1] == pytest.approx(1 - accuracy(p, labels))
    assert (curve.risk >= 0).all() and (curve.risk <= 1).all()
    order = np.random.default_rng(0).permutation(len(labels))
    np.testing.assert_allclose(risk_coverage(p[order], labels[order]).risk, curve.risk, atol=1e-12)


def test_errors_that_are_least_sure_make_the_area_small():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    areas = [risk_coverage(p, labels).area for labels in ([0, 0, 0, 1], [1, 0, 0, 0])]
    assert areas == pytest.approx([1 / 16, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4])


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="no logits"):
        risk_coverage([[3.0, 1.0]], [0])
    with pytest.raises(ValueError, match="1 integer labels"):
        risk_coverage([[0.5, 0.5]], [0, 1])
