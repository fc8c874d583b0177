import numpy as np
import pytest
from hypothesis import strategies as st
from random_answers import answers, for_all, random_answers
from scipy import special
from sklearn import metrics as sklearn_metrics

from scc_tf.metrics import KINDS, ood_report, ood_scores, softmax


def slow_auroc(inside, outside):
    return np.mean([(a > b) + 0.5 * (a == b) for a in inside for b in outside])


def slow_fpr95(inside, outside):
    """The highest threshold that accepts at least 95 % of the test images, and what else it accepts."""
    threshold = max(t for t in inside if np.mean(inside >= t) >= 0.95)
    return np.mean(outside >= threshold)


def slow_average_precision(positive, negative):
    """Precision at each threshold, weighted by the gain in recall."""
    total = recall_before = 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        accepted = np.sum(positive >= threshold)
        recall = accepted / len(positive)
        total += (recall - recall_before) * accepted / (accepted + np.sum(negative >= threshold))
        recall_before = recall
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_in", "n_out"), [(60, 40), (20, 90), (1, 1), (100, 7)])
def test_separation_is_that_of_the_definition(kind, n_in, n_out):
    inside, outside = random_answers(n_in, scale=4.0)[0], random_answers(n_out, seed=1)[0]
    found = ood_report(inside, outside).scores[kind]
    a, b = ood_scores(inside, kind), ood_scores(outside, kind)
    assert found.auroc == pytest.approx(slow_auroc(a, b))
    assert found.fpr95 == pytest.approx(slow_fpr95(a, b))
    assert found.aupr_in == pytest.approx(slow_average_precision(a, b))
    assert found.aupr_out == pytest.approx(slow_average_precision(-b, -a))


def test_scores_are_larger_inside():
    sure, unsure = [[9.0, 0.0, 0.0]], [[1.0, 1.0, 0.9]]
    for kind in KINDS:
        assert ood_scores(sure, kind) > ood_scores(unsure, kind)


def test_scores_are_those_of_scipy():
    logits, _ = random_answers()
    p = special.softmax(logits, axis=1)
    np.testing.assert_allclose(ood_scores(logits, "probability"), p.max(axis=1))
    np.testing.assert_allclose(ood_scores(logits, "entropy"), -special.entr(p).sum(axis=1) / np.log(5))
    np.testing.assert_allclose(ood_scores(logits, "energy"), np.log(np.exp(logits).sum(axis=1)))


def test_a_perfect_and_a_useless_score():
    sure, unsure = 9 * np.eye(4), 0.1 * np.eye(4)
    perfect = ood_report(sure, unsure).scores["probability"]
    assert (perfect.auroc, perfect.aupr_in, perfect.aupr_out, perfect.fpr95) == (1, 1, 1, 0)
    wrong = ood_report(unsure, sure).scores["probability"]
    assert (wrong.auroc, wrong.fpr95) == (0, 1)
    useless = ood_report(sure, sure).scores["probability"]
    assert (useless.auroc, useless.aupr_in, useless.fpr95) == (0.5, 0.5, 1)


def test_the_shift_of_the_confidence():
    report = ood_report([[0.0, 200.0]], [[0.0, 0.0]])
    assert (report.confidence_in, report.confidence_out, report.confidence_shift) == (1.0, 0.5, 0.5)


@pytest.mark.slow
@for_all(answers(), st.integers(0, 2**32 - 1))
def test_what_holds_for_all_answers(pair, seed):
    logits, _ = pair
    other = logits[np.random.default_rng(seed).integers(0, len(logits), 7)] / 2
    there, back = ood_report(logits, other), ood_report(other, logits)
    for kind in KINDS:
        found, swapped = there.scores[kind], back.scores[kind]
        assert found.auroc + swapped.auroc == pytest.approx(1)
        assert all(0 <= value <= 1 for value in vars(found).values())
    assert there.confidence_shift == pytest.approx(-back.confidence_shift)


def test_as_many_classes_inside_as_outside():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        ood_report(np.zeros((2, 3)), np.zeros((2, 4)))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="kind='odin'"):
        ood_scores([[0.0, 1.0]], "odin")
    with pytest.raises(ValueError, match="out_logits to be finite"):
        ood_report([[0.0, 1.0]], [[0.0, np.inf]])


def test_auroc_agrees_with_scikit_learn_where_out_is_positive():
    inside, outside = random_answers(50, scale=4.0)[0], random_answers(50, seed=1)[0]
    uncertainty = 1 - np.concatenate([softmax(inside), softmax(outside)]).max(axis=1)
    expected = sklearn_metrics.roc_auc_score([0] * 50 + [1] * 50, uncertainty)
    assert ood_report(inside, outside).scores["probability"].auroc == pytest.approx(expected)
