import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding import from_gaps, to_gaps

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12)


def slow_gaps(flat, bits):
    """The definition, one element at a time."""
    stored, zeros = [], 0
    for place, value in enumerate(flat):
        full = zeros == 2**bits - 1 and flat[place:].any()  # a filler, unless only zeros are left
        if value or full:
            stored.append((zeros, value))
            zeros = 0
        else:
            zeros += 1
    return [gap for gap, _ in stored], [value for _, value in stored]


@pytest.mark.slow
@settings(max_examples=100)
@given(st.data(), st.sampled_from([1, 2, 3, 4, 5, 8, 16, 32]), st.sampled_from([np.int8, np.int64, np.float32, bool]))
def test_any_array_survives_in_the_fewest_fields(data, bits, dtype):
    mask = data.draw(hnp.arrays(np.int8, data.draw(SHAPES), elements=st.sampled_from([0] * 9 + [1, -3])))
    array = mask.astype(dtype)
    gaps, entries = to_gaps(array, bits)
    assert entries.dtype == dtype
    assert (gaps.tolist(), entries.tolist()) == slow_gaps(array.ravel(), bits)
    restored = from_gaps(gaps, entries, array.shape)
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, array)


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_a_gap_that_just_fits_needs_no_filler(bits):
    for zeros, fillers in [(2**bits - 1, 0), (2**bits, 1), (2 ** (bits + 1) - 1, 1), (2 ** (bits + 1), 2)]:
        gaps, entries = to_gaps(np.append(np.zeros(zeros), 7.0), bits)
        assert gaps.size == 1 + fillers
        assert gaps.max() == 2**bits - 1 or not fillers
        np.testing.assert_array_equal(entries, [0.0] * fillers + [7.0])


def test_the_figure_of_deep_compression():
    """Figure 2: entries at 1, 4 and 15 with three bits; the difference 8 and a filler zero bridge the long gap."""
    row = np.zeros(16)
    row[[1, 4, 15]] = 3.4, 0.9, 1.7
    gaps, entries = to_gaps(row, 3)
    assert (gaps[1:] + 1).tolist() == [3, 8, 3]
    assert entries.tolist() == [3.4, 0.9, 0, 1.7]


def test_zeros_and_dense_arrays():
    assert [part.size for part in to_gaps(np.zeros((5, 5)), 4)] == [0, 0]
    np.testing.assert_array_equal(from_gaps(np.zeros(0, int), np.zeros(0), (5, 5)), np.zeros((5, 5)))
    gaps, entries = to_gaps(np.arange(1, 26).reshape(5, 5), 4)
    assert not gaps.any()
    assert entries.tolist() == list(range(1, 26))
    gaps, _ = to_gaps(np.append([1.0], np.zeros(10_000)), 4)
    assert gaps.tolist() == [0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: to_gaps([1], 0),
        lambda: to_gaps([1], 33),
        lambda: from_gaps([0, 0], [1], 5),
        lambda: from_gaps([[0]], [[1]], 5),
        lambda: from_gaps([-1], [1], 5),
        lambda: from_gaps([0.5], [1], 5),
        lambda: from_gaps([5], [1], 5),
        lambda: from_gaps([2, 2], [1, 1], 5),
        lambda: from_gaps([0], [1], 0),
        lambda: from_gaps(np.array([2**64 - 1], np.uint64), [1], 5),
    ],
)
def test_wrong_or_damaged_arguments_are_refused(call):
    with pytest.raises(ValueError, match="Received"):
        call()
