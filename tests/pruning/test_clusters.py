import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from scc_tf.pruning import first_members, fit_scales, group_filters, merge_members, sum_readers


def filters(count=12, width=7, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width))


def loss(points, labels):
    return sum(np.square(points[labels == k] - points[labels == k].mean(axis=0)).sum() for k in set(labels))


@pytest.mark.slow
@hypothesis.settings(max_examples=25)
@hypothesis.given(st.integers(1, 14), st.data(), st.booleans())
def test_there_are_as_many_clusters_as_asked_for_numbered_by_their_first_members(channels, data, up_to_scale):
    count = data.draw(st.integers(1, channels))
    weights = np.random.default_rng(1).random(channels) ** 6
    labels = group_filters(filters(channels), count, weights, up_to_scale)
    assert labels.shape == (channels,)
    _, first = np.unique(labels, return_index=True)
    assert len(first) == count and list(first) == sorted(first)
    assert first_members(labels).sum() == count


def test_equal_filters_are_together_whatever_their_order():
    four = filters(4)
    order = np.random.default_rng(3).permutation(np.repeat(np.arange(4), 4))
    labels = group_filters(four[order], 4)
    assert len({(a, b) for a, b in zip(order, labels, strict=True)}) == 4
    assert group_filters(four[order], 9).max() == 3  # no more clusters than filters that differ


def test_filters_that_differ_by_rounding_alone_are_together():
    points = np.repeat(filters(3), 2, axis=0) * (1 + 1e-16 * np.arange(6)[:, None] + 2e-16)
    points[::2] *= 1 + 3e-16
    labels = group_filters(points, 5)
    assert all(len(set(labels[labels == k])) == 1 for k in labels) and labels[0] != labels[2] != labels[4]


def test_the_closest_pair_goes_first():
    points = filters(10)
    labels = group_filters(points, 9)
    pairs = [loss(points, np.where(np.arange(10) == b, a, np.arange(10))) for a in range(10) for b in range(a)]
    assert loss(points, labels) == pytest.approx(min(pairs))


def test_clusters_are_a_local_minimum():
    points = filters(24)
    labels = group_filters(points, 6)
    centres = merge_members(points, labels)
    distances = np.square(points[:, None] - centres).sum(axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), labels)


def test_multiples_are_alike_only_up_to_scale():
    points = np.array([[1.0, 0], [5, 0], [1, 0.3], [5, 1.5]])
    assert group_filters(points, 2, up_to_scale=True).tolist() == [0, 0, 1, 1]
    assert group_filters(points, 2).tolist() == [0, 1, 0, 1]


def test_heavy_filters_are_kept_apart():
    points = np.array([[0.0], [1.0], [2.1]])
    assert group_filters(points, 2).tolist() == [0, 0, 1]
    assert group_filters(points, 2, weights=[1e6, 1e6, 1]).tolist() == [0, 1, 1]


def test_scales_are_the_multiples():
    direction, multiples = np.array([1.0, -2.0, 0.5]), np.array([1.0, 4.0, 2.5])
    labels = np.zeros(3, int)
    scales = fit_scales(np.outer(multiples, direction), labels)
    np.testing.assert_allclose(scales, multiples / 2.5)
    merged = merge_members(np.outer(multiples, direction), labels, scales)
    np.testing.assert_allclose(np.outer(scales, merged), np.outer(multiples, direction))


def test_filters_that_point_apart_have_no_negative_scale():
    points = np.array([[1.0, 0], [1, 0.1], [-0.5, 0]])
    scales = fit_scales(points, np.zeros(3, int))
    assert scales[2] == 0 and scales[:2].min() > 0
    np.testing.assert_array_equal(fit_scales(np.array([[1.0], [-1.0]]), np.zeros(2, int)), [1, 1])


def test_merged_values_are_the_least_squares():
    rng = np.random.default_rng(0)
    values, scales, weights = rng.normal(size=(5, 3)), rng.random(5), rng.random(5)
    root = np.sqrt(weights)
    best = np.linalg.lstsq((root * scales)[:, None], root[:, None] * values, rcond=None)[0]
    np.testing.assert_allclose(merge_members(values, np.zeros(5, int), scales, weights), best)
    np.testing.assert_allclose(
        merge_members(values, np.zeros(5, int), weights=np.zeros(5)), values.mean(0, keepdims=True)
    )


def test_readers_are_summed_in_any_shape():
    slices = np.random.default_rng(0).normal(size=(4, 2, 3))
    sums = sum_readers(slices, [0, 1, 0, 1], [1, 1, 2, 0.5])
    np.testing.assert_allclose(sums, [slices[0] + 2 * slices[2], slices[1] + 0.5 * slices[3]])


@pytest.mark.parametrize(
    ("points", "count", "weights", "message"),
    [
        (np.ones(3), 1, None, r"points \(C, D\)"),
        (np.full((2, 2), np.nan), 1, None, "points to be finite"),
        (np.ones((3, 2)), 0, None, "count to be a whole number from 1 to 3"),
        (np.ones((3, 2)), 4, None, "count to be a whole number from 1 to 3"),
        (np.ones((3, 2)), 2, [1, 1], "3 finite weights"),
        (np.ones((3, 2)), 2, [1, 1, -1], "none negative"),
    ],
)
def test_what_cannot_be_clustered(points, count, weights, message):
    with pytest.raises(ValueError, match=message):
        group_filters(points, count, weights)
