import numpy as np
import pytest
from hypothesis import strategies as st
from random_answers import answers, for_all, random_answers
from scipy import special
from sklearn import metrics as sklearn_metrics

from scc_tf.metrics import (
    accuracy,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    maximum_calibration_error,
    negative_log_likelihood,
    normalized_entropy,
    reliability_bins,
    softmax,
    uncertainty_calibration_error,
)

SURE = np.eye(3)
ALL = (
    accuracy,
    negative_log_likelihood,
    brier_score,
    expected_calibration_error,
    maximum_calibration_error,
    uncertainty_calibration_error,
    reliability_bins,
)


def slow_gaps(values, events, bins):
    """``(weight, gap)`` of every bin that is not empty, from the definition."""
    for j in range(bins):
        inside = (values > j / bins) & (values <= (j + 1) / bins) | ((values == 0) & (j == 0))
        if inside.any():
            yield inside.mean(), abs(events[inside].mean() - values[inside].mean())


def slow_errors(logits, labels, bins):
    """ECE, MCE and UCE."""
    probabilities = special.softmax(logits, axis=1)
    right = probabilities.argmax(axis=1) == labels
    gaps = list(slow_gaps(probabilities.max(axis=1), right, bins))
    uncertainty = special.entr(probabilities).sum(axis=1) / np.log(logits.shape[1])
    uncertain = slow_gaps(uncertainty, ~right, bins)
    return sum(w * g for w, g in gaps), max(g for _, g in gaps), sum(w * g for w, g in uncertain)


@pytest.mark.parametrize("bins", [1, 2, 7, 10, 15])
def test_calibration_errors_are_those_of_the_definition(bins):
    logits, labels = random_answers()
    p = softmax(logits)
    errors = [
        f(p, labels, bins)
        for f in (expected_calibration_error, maximum_calibration_error, uncertainty_calibration_error)
    ]
    assert errors == pytest.approx(slow_errors(logits, labels, bins))


@pytest.mark.parametrize("bins", [1, 3, 10, 16])
def test_equal_mass_is_the_mean_gap_of_equal_parts(bins):
    logits, labels = random_answers(count=160)
    p = softmax(logits)
    order = np.argsort(p.max(axis=1))
    right = p.argmax(axis=1) == labels
    cuts = [-(-160 * j // bins) for j in range(1, bins)]
    parts = [part for part in np.split(order, cuts) if len(part)]
    expected = sum(len(part) / 160 * abs(right[part].mean() - p.max(axis=1)[part].mean()) for part in parts)
    assert expected_calibration_error(p, labels, bins, "mass") == pytest.approx(expected)
    assert np.ptp(reliability_bins(p, labels, bins, "mass").weight) <= 1 / 160 + 1e-12


def test_scores_are_those_of_scikit_learn():
    logits, labels = random_answers()
    p = softmax(logits)
    assert accuracy(p, labels) == sklearn_metrics.accuracy_score(labels, p.argmax(axis=1))
    assert negative_log_likelihood(p, labels) == pytest.approx(sklearn_metrics.log_loss(labels, p))
    one_hot = np.eye(p.shape[1])[labels]
    wanted = sum(sklearn_metrics.brier_score_loss(right, says) for right, says in zip(one_hot.T, p.T, strict=True))
    assert brier_score(p, labels) == pytest.approx(wanted)  # older ones score two classes only


def test_sure_and_right():
    labels = [0, 1, 2]
    assert accuracy(SURE, labels) == 1
    errors = (negative_log_likelihood, brier_score, expected_calibration_error, maximum_calibration_error)
    assert [f(SURE, labels) for f in (*errors, uncertainty_calibration_error)] == [0.0] * 5


def test_sure_and_wrong():
    labels = [1, 2, 0]
    errors = (expected_calibration_error, maximum_calibration_error, uncertainty_calibration_error)
    assert [f(SURE, labels) for f in errors] == [1.0] * 3
    assert brier_score(SURE, labels) == 2.0
    assert negative_log_likelihood(SURE, labels) == pytest.approx(708.4, abs=0.1)


def test_an_uncertainty_of_zero_counts():
    """The first bin includes its lower edge: the founding notebooks left these examples out."""
    p = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    assert uncertainty_calibration_error(p, [1, 1, 0]) == pytest.approx(2 / 3 + 1 / 3)


def test_the_edge_belongs_to_the_lower_bin():
    p = np.array([[0.6, 0.4], [0.61, 0.39], [1.0, 0.0]])
    np.testing.assert_allclose(reliability_bins(p, [0, 0, 0], 5).weight, [0, 0, 1 / 3, 1 / 3, 1 / 3])


def test_equal_confidences_share_a_bin():
    p = np.array([[0.7, 0.3]] * 6 + [[0.9, 0.1]] * 2)
    bins = reliability_bins(p, [0, 1] * 4, 4, "mass")
    np.testing.assert_allclose(bins.weight, [0.75, 0, 0, 0.25])
    np.testing.assert_allclose(bins.confidence, [0.7, 0, 0, 0.9])


@for_all(answers(), st.integers(1, 20), st.sampled_from(["width", "mass"]))
def test_what_holds_for_all_answers(pair, bins, scheme):
    logits, labels = pair
    p = softmax(logits)
    found = reliability_bins(p, labels, bins, scheme)
    assert found.weight.sum() == pytest.approx(1)
    assert found.weight @ found.accuracy == pytest.approx(accuracy(p, labels))
    assert found.weight @ found.confidence == pytest.approx(p.max(axis=1).mean())
    assert (np.diff(found.edges) >= 0).all() and len(found.edges) == bins + 1
    ece = expected_calibration_error(p, labels, bins, scheme)
    assert 0 <= ece <= maximum_calibration_error(p, labels, bins, scheme) + 1e-12 <= 1 + 1e-9
    assert 0 <= uncertainty_calibration_error(p, labels, bins) <= 1
    assert 0 <= brier_score(p, labels) <= 2 and 0 <= negative_log_likelihood(p, labels) < 709


@for_all(answers(), st.sampled_from(["width", "mass"]))
def test_the_order_of_the_examples_does_not_matter(pair, scheme):
    logits, labels = pair
    order = np.random.default_rng(0).permutation(len(labels))
    p = softmax(logits)
    first, second = reliability_bins(p, labels, 4, scheme), reliability_bins(p[order], labels[order], 4, scheme)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@for_all(answers())
def test_one_bin_compares_the_means(pair):
    logits, labels = pair
    p = softmax(logits)
    gap = abs(p.max(axis=1).mean() - accuracy(p, labels))
    for scheme in ("width", "mass"):
        assert expected_calibration_error(p, labels, 1, scheme) == pytest.approx(gap, abs=1e-12)


def test_float16_and_small_integers_are_taken():
    logits, labels = random_answers()
    p = softmax(logits)
    rough = expected_calibration_error(p.astype(np.float16), labels.astype(np.uint8))
    assert rough == pytest.approx(expected_calibration_error(p, labels), abs=2e-2)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "3 integer labels"),
        ([[0], [1], [2]], "3 integer labels"),
        ([0.0, 1.0, 2.0], "dtype=float64"),
        ([0, 1, 3], r"labels in \[0, 3\)"),
        ([0, -1, 2], "from -1"),
    ],
)
def test_labels_are_checked(function, labels, message):
    with pytest.raises(ValueError, match=message):
        function(SURE, labels)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.ones(3), r"shape=\(3,\)"),
        (np.ones((3, 1)), "two classes"),
        (np.ones((0, 3)), "at least one example"),
        ([[np.nan, 1.0]], "1 that are not"),
    ],
)
def test_probabilities_are_checked(function, probabilities, message):
    with pytest.raises(ValueError, match=message):
        function(probabilities, [0])


@pytest.mark.parametrize("function", ALL[1:])
@pytest.mark.parametrize("logits", [[[2.0, 5.0]], [[-0.5, 1.5]], [[0.2, 0.2]]])
def test_logits_are_refused(function, logits):
    with pytest.raises(ValueError, match="no logits"):
        function(logits, [1])


@pytest.mark.parametrize("bins", [0, -3, 2.0, True, "ten"])
@pytest.mark.parametrize("function", ALL[3:])
def test_the_number_of_bins_is_checked(function, bins):
    with pytest.raises(ValueError, match="bins to be a whole number of at least 1"):
        function(SURE, [0, 1, 2], bins)


def test_the_scheme_is_checked():
    with pytest.raises(ValueError, match="scheme='depth'"):
        expected_calibration_error(SURE, [0, 1, 2], scheme="depth")


def test_entropy_is_that_of_scipy():
    logits, _ = random_answers()
    p = softmax(logits)
    np.testing.assert_allclose(normalized_entropy(p), [special.entr(row).sum() / np.log(5) for row in p])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_is_found_again(temperature):
    """Labels drawn from softmax(z / T) make T the most likely temperature of z."""
    logits = 4 * np.random.default_rng(0).normal(size=(20_000, 4))
    draws = np.random.default_rng(1).random((20_000, 1))
    labels = (softmax(logits, temperature).cumsum(axis=1) < draws).sum(axis=1)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.slow
@for_all(answers())
def test_no_temperature_of_a_grid_is_better(pair):
    logits, labels = pair
    best = negative_log_likelihood(softmax(logits, fit_temperature(logits, labels)), labels)
    others = [negative_log_likelihood(softmax(logits, t), labels) for t in np.geomspace(0.011, 99, 25)]
    assert best <= min(others) + 1e-5 * max(1, best)


def test_temperature_changes_no_answer_and_scales_with_the_logits():
    logits, labels = random_answers()
    temperature = fit_temperature(logits, labels)
    np.testing.assert_array_equal(softmax(logits, temperature).argmax(axis=1), logits.argmax(axis=1))
    assert fit_temperature(5 * logits, labels) == pytest.approx(5 * temperature, rel=1e-4)


def test_temperature_at_its_bounds():
    assert 0.01 <= fit_temperature(SURE, [0, 1, 2]) < 0.05
    assert fit_temperature(SURE, [1, 2, 0]) == pytest.approx(100, rel=0.01)
    assert fit_temperature(np.zeros((4, 3)), [0, 1, 2, 0]) == 1.0


@pytest.mark.parametrize("temperature", [0, -1.0, np.inf, np.nan])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="temperature to be a number in"):
        softmax([[0.0, 1.0]], temperature)


def test_softmax_of_huge_logits():
    assert softmax([[1e30, -1e30], [1e5, 1e5]]).tolist() == [[1.0, 0.0], [0.5, 0.5]]
