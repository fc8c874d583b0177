import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding import share_weights
from scc_tf.coding.codebook import STARTS

WEIGHTS = np.array(
    [[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0, -1.03], [1.87, 0, 1.53, 1.49]]
)


def test_the_figure_of_deep_compression():
    """Figure 3: the indices and the centroids."""
    centroids, indices = share_weights(WEIGHTS, 4)
    np.testing.assert_array_equal(indices, [[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]])
    np.testing.assert_allclose(centroids, [-1, 0, 1.5, 2], atol=1e-6)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-3, 3).map(float)


@pytest.mark.slow
@settings(max_examples=60)
@given(hnp.arrays(np.float32, st.integers(1, 30), elements=FLOATS), st.integers(1, 9), st.sampled_from(STARTS))
def test_centroids_are_the_ascending_means_of_intervals(values, clusters, start):
    centroids, indices = share_weights(values, clusters, start)
    assert centroids.dtype == np.float32
    assert indices.shape == values.shape
    assert 1 <= centroids.size <= clusters
    assert (np.diff(centroids.astype(np.float64)) > 0).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(indices[order]) >= 0).all()
    for cluster, centroid in enumerate(centroids):
        members = values[indices == cluster].astype(np.float64)
        np.testing.assert_allclose(centroid, members.mean(), rtol=1e-6, atol=1e-44 + 1e-15 * np.abs(members).max())


@pytest.mark.parametrize("start", STARTS)
def test_few_different_values_are_kept_as_they_are(start):
    values = np.float32([[0.1, -0.3], [0.1, 7.0]])
    centroids, indices = share_weights(values, 16, start)
    np.testing.assert_array_equal(centroids, np.unique(values))
    np.testing.assert_array_equal(centroids[indices], values)


def pruned_layer():
    """A trained and pruned layer's weights: two modes, few large ones."""
    rng = np.random.default_rng(0)
    return np.float32(rng.choice([-1, 1], 3000) * (0.03 + rng.gamma(2, 0.02, 3000)))


@pytest.mark.parametrize("start", STARTS)
def test_more_clusters_come_closer(start):
    values = pruned_layer()
    errors = []
    for clusters in (1, 4, 16, 64):
        centroids, indices = share_weights(values, clusters, start)
        errors.append(np.square(values - centroids[indices]).sum())
    assert errors[0] == pytest.approx(np.square(values - values.mean()).sum(), rel=1e-4)
    assert all(few > 3 * many for few, many in itertools.pairwise(errors))


def test_a_linear_start_serves_large_weights_best():
    """Section 3.2: centroids spread over the range leave large weights with smaller errors than the density's do."""
    values = pruned_layer()
    large = np.abs(values) > np.quantile(np.abs(values), 0.99)
    errors = {}
    for start in ("linear", "density"):
        centroids, indices = share_weights(values, 16, start)
        errors[start] = np.square(values - centroids[indices])[large].sum()
    assert errors["linear"] <= errors["density"]


def test_the_seed_fixes_a_random_start():
    values = pruned_layer()
    first, again, other = (share_weights(values, 8, "forgy", seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda: share_weights([], 2),
        lambda: share_weights([np.nan], 2),
        lambda: share_weights([1e39], 2),
        lambda: share_weights([1.0], 0),
        lambda: share_weights([1.0], 2, "random"),
    ],
)
def test_wrong_arguments_are_refused(call):
    with pytest.raises(ValueError, match="Received"):
        call()
