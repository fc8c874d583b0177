import numpy as np
import pytest

from scc_tf.safety.uncertainty import class_probabilities, margin

DISTRIBUTIONS = np.random.default_rng(0).dirichlet(np.ones(6), 200)


def test_matches_sorting():
    ranked = [sorted(row, reverse=True) for row in DISTRIBUTIONS.tolist()]
    np.testing.assert_array_equal(margin(DISTRIBUTIONS), [row[0] - row[1] for row in ranked])


def test_sure_and_torn():
    np.testing.assert_array_equal(margin([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]), [1, 0])


def test_is_not_least_confidence():
    torn, clear = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0], [0.4, 0.12, 0.12, 0.12, 0.12, 0.12]
    assert np.argmin(margin([torn, clear])) == 0
    assert np.argmin(np.max([torn, clear], axis=1)) == 1


def test_the_order_of_the_classes_does_not_matter():
    np.testing.assert_array_equal(margin(DISTRIBUTIONS), margin(DISTRIBUTIONS[:, ::-1]))


def test_input_is_not_changed():
    before = DISTRIBUTIONS.copy()
    margin(DISTRIBUTIONS)
    np.testing.assert_array_equal(DISTRIBUTIONS, before)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 3, 4)])
def test_shapes_are_checked(shape):
    with pytest.raises(ValueError, match="at least two classes"):
        margin(np.ones(shape))


@pytest.mark.parametrize("row", [[2.0, 5.0], [1.5, -0.5], [np.nan, 1.0]])
def test_logits_are_refused(row):
    with pytest.raises(ValueError, match="sum to 1"):
        margin([row])


def test_logits_become_their_softmax_and_probabilities_stay():
    logits = np.log(DISTRIBUTIONS) + np.arange(200)[:, None] - 90
    np.testing.assert_allclose(class_probabilities(logits), DISTRIBUTIONS)
    np.testing.assert_array_equal(class_probabilities(DISTRIBUTIONS), DISTRIBUTIONS)


def test_huge_and_half_precision_logits():
    np.testing.assert_array_equal(class_probabilities([[1e4, 0.0], [-1e4, -1e4]]), [[1, 0], [0.5, 0.5]])
    assert class_probabilities(np.array([[9, -9]], np.float16)).dtype == np.float32
