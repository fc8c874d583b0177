import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.pruning import block_mask, global_masks, magnitude_mask, n_of_m_mask, quality_mask

TIED = st.integers(-4, 4).map(float)  # few different magnitudes: many ties
SPARSITIES = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0])
MATRICES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=TIED)


def tfmot_mask(weights, sparsity):
    """TF-MOT's definition, step by step: all weights sorted, the k-th is the threshold, and it stays."""
    flat = np.abs(weights).ravel()
    kept = int(max(np.round(np.float32(flat.size) * (1 - np.float32(sparsity))), 1))
    threshold = sorted(flat.tolist(), reverse=True)[kept - 1]
    return np.abs(weights) >= threshold


@pytest.mark.slow
@settings(max_examples=100)
@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, max_side=6), elements=TIED), SPARSITIES)
def test_the_mask_is_tfmots_ties_included(weights, sparsity):
    mask = magnitude_mask(weights, sparsity)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, tfmot_mask(weights, sparsity))


@pytest.mark.slow
@settings(max_examples=100)
@given(MATRICES, SPARSITIES)
def test_exact_numbers_keep_the_first_of_equals(weights, sparsity):
    mask = magnitude_mask(weights, sparsity, ties="first").ravel()
    flat = np.abs(weights).ravel()
    assert mask.sum() == max(np.round(np.float32(flat.size) * (1 - np.float32(sparsity))), 1)
    assert flat[~mask].max(initial=0) <= flat[mask].min()
    on_the_edge = mask[flat == flat[mask].min()]
    assert (np.diff(on_the_edge.astype(int)) <= 0).all()


def test_a_layer_that_is_mostly_zeros_shows_the_difference():
    weights = np.r_[np.zeros(9), 1.0]
    assert magnitude_mask(weights, 0.5).sum() == 10
    assert magnitude_mask(weights, 0.5, ties="first").tolist() == [True] * 4 + [False] * 5 + [True]
    assert magnitude_mask(np.zeros((0, 3)), 0.5).shape == (0, 3)


def test_one_threshold_serves_all_layers():
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(5, 4)), 3 * rng.normal(size=(2, 2, 3, 4)), 0.1 * rng.normal(size=7)]
    masks = global_masks(layers, 0.6)
    assert [mask.shape for mask in masks] == [layer.shape for layer in layers]
    assert sum(int(mask.sum()) for mask in masks) == round(0.4 * 75)
    lost = [np.abs(layer[~mask]).max(initial=0) for layer, mask in zip(layers, masks, strict=True)]
    kept = [np.abs(layer[mask]).min(initial=np.inf) for layer, mask in zip(layers, masks, strict=True)]
    assert max(lost) < min(kept)
    assert not masks[2].any()
    np.testing.assert_array_equal(global_masks(layers[:1], 0.3)[0], magnitude_mask(layers[0], 0.3))
    assert global_masks([], 0.5) == []
    tied = global_masks([np.ones(3), np.ones(3)], 0.5, ties="first")
    assert [mask.tolist() for mask in tied] == [[True] * 3, [False] * 3]


def test_quality_is_in_standard_deviations_of_what_is_left():
    rng = np.random.default_rng(0)
    weights = rng.normal(scale=0.2, size=(50, 80))
    mask = quality_mask(weights, 1.0)
    np.testing.assert_array_equal(mask, np.abs(weights) >= weights.std())
    assert mask.mean() == pytest.approx(0.317, abs=0.03)
    again = quality_mask(weights * mask, 1.0, mask)
    np.testing.assert_array_equal(again, mask & (np.abs(weights) >= weights[mask].std()))
    assert 0 < again.sum() < mask.sum()
    assert quality_mask(weights, 0.0).all()
    assert not quality_mask(weights, 0.0, np.zeros_like(mask)).any()


def slow_n_of_m(row, kept, group):
    mask = []
    for start in range(0, len(row), group):
        part = list(range(start, min(start + group, len(row))))
        stay = sorted(part, key=lambda i: (-abs(row[i]), i))[:kept]
        mask += [i in stay for i in part]
    return mask


@settings(max_examples=60)
@given(MATRICES, st.integers(0, 4), st.integers(4, 5), st.sampled_from([0, 1, -1, -2]))
def test_n_of_m(weights, kept, group, axis):
    mask = n_of_m_mask(weights, kept, group, axis)
    rows = np.apply_along_axis(lambda row: slow_n_of_m(row, kept, group), axis, weights)
    np.testing.assert_array_equal(mask, rows.astype(bool))


def test_two_of_four_runs_along_the_inputs_of_every_kernel():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 5))
    counts = n_of_m_mask(kernel).reshape(9, 2, 4, 5).sum(axis=2)
    assert (counts == 2).all()
    np.testing.assert_array_equal(n_of_m_mask(kernel[0, 0]), n_of_m_mask(kernel)[0, 0])
    assert n_of_m_mask(np.array([[3, 1, 2, 1]], np.uint8), axis=1).tolist() == [[True, False, True, False]]


def slow_blocks(weights, block, pooling):
    pool = np.max if pooling == "max" else np.mean
    height, width = block
    rows, columns = weights.shape
    return np.array(
        [
            [pool(np.abs(weights[i : i + height, j : j + width])) for j in range(0, columns, width)]
            for i in range(0, rows, height)
        ]
    )


@settings(max_examples=60)
@given(MATRICES, SPARSITIES, st.tuples(st.integers(1, 4), st.integers(1, 4)), st.sampled_from(["average", "max"]))
def test_blocks_stay_or_go_as_a_whole(weights, sparsity, block, pooling):
    mask = block_mask(weights, sparsity, block, pooling, ties="first")
    stays = slow_blocks(mask.astype(float), block, "average")
    assert set(stays.ravel()) <= {0.0, 1.0}
    pooled = slow_blocks(weights, block, pooling)
    assert stays.sum() == max(np.round(np.float32(pooled.size) * (1 - np.float32(sparsity))), 1)
    assert pooled[stays == 0].max(initial=0) <= pooled[stays == 1].min() + 1e-6


def test_blocks_of_one_weight_are_weights_and_any_rank_has_blocks():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(block_mask(kernel, 0.7, (1, 1, 1, 1)), magnitude_mask(kernel, 0.7))
    mask = block_mask(kernel, 0.5, (3, 3, 1, 1), "max")
    expected = magnitude_mask(np.abs(kernel).max(axis=(0, 1)), 0.5)
    np.testing.assert_array_equal(mask, np.broadcast_to(expected, kernel.shape))


@pytest.mark.parametrize(
    "call",
    [
        lambda: magnitude_mask([1.0], 1.1),
        lambda: magnitude_mask([1.0], np.nan),
        lambda: magnitude_mask([1.0], 0.5, "last"),
        lambda: magnitude_mask([np.nan], 0.5),
        lambda: magnitude_mask([1j], 0.5),
        lambda: global_masks([[1.0]], -0.1),
        lambda: quality_mask([1.0], -1),
        lambda: quality_mask([1.0], 1, [True, False]),
        lambda: n_of_m_mask([1.0]),
        lambda: n_of_m_mask([[1.0]], 5, 4),
        lambda: n_of_m_mask([[1.0]], 0, 0),
        lambda: block_mask([[1.0]], 0.5, (1,)),
        lambda: block_mask([[1.0]], 0.5, (1, 0)),
        lambda: block_mask([[1.0]], 0.5, (1, 1), "min"),
    ],
)
def test_wrong_arguments_are_refused(call):
    with pytest.raises(ValueError, match="Received"):
        call()
