import numpy as np
import pytest

from scc_tf.pruning import kept_count, largest_neurons, neuron_scores


@pytest.mark.parametrize("shape", [(4, 3), (2, 2, 5, 3)])
def test_scores_are_the_sums_of_absolute_incoming_weights(shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    slow = [sum(abs(float(w)) for w in kernel[..., channel].ravel()) for channel in range(3)]
    np.testing.assert_allclose(neuron_scores(kernel), slow, rtol=1e-12)


@pytest.mark.parametrize("kernel", [np.ones(3), np.array([[1.0, np.nan]])])
def test_what_is_no_kernel_is_refused(kernel):
    with pytest.raises(ValueError, match=r"Expected a kernel .* Received: shape="):
        neuron_scores(kernel)


def test_the_number_that_goes_is_rounded_down():
    assert [kept_count(30, n / 10) for n in range(11)] == [30, 27, 24, 21, 18, 15, 12, 9, 6, 3, 1]
    assert [kept_count(6, ratio) for ratio in (0, 0.2, 0.4, 0.6, 0.8)] == [6, 5, 4, 3, 2]
    assert kept_count(1, 1) == 1


@pytest.mark.parametrize("percent", range(101))
def test_binary_fractions_do_not_lose_a_neuron(percent):
    assert kept_count(100, percent / 100) == max(100 - percent, 1)


@pytest.mark.parametrize(("channels", "ratio"), [(0, 0.5), (3, -0.1), (3, 1.1), (3, np.nan)])
def test_counts_out_of_range_are_refused(channels, ratio):
    with pytest.raises(ValueError, match=r"Expected channels from 1 and a ratio in \[0, 1\]"):
        kept_count(channels, ratio)


def test_the_largest_stay_and_of_equal_ones_the_first():
    assert largest_neurons([3, 1, 2, 1], 3).tolist() == [True, True, True, False]
    assert largest_neurons(np.zeros(4), 1).tolist() == [True, False, False, False]


@pytest.mark.parametrize(("scores", "count"), [([1, 2], 0), ([1, 2], 3), ([[1, 2]], 1), ([1, np.nan], 1)])
def test_impossible_choices_are_refused(scores, count):
    with pytest.raises(ValueError, match="Expected a vector of scores"):
        largest_neurons(scores, count)
