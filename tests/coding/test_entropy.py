import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding import decode, encode

INT32 = st.integers(-(2**31), 2**31 - 1)
SMALL = st.integers(-9, 9)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9), elements=INT32 | SMALL))
def test_any_int32_array_survives(values):
    restored = decode(encode(values), values.shape)
    assert restored.dtype == np.int32
    np.testing.assert_array_equal(restored, values)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 300), st.sampled_from([1, 3, 17, 300, 65536]))
def test_any_contexts_do(data, count, contexts):
    values = data.draw(hnp.arrays(np.int32, count, elements=SMALL | INT32))
    contexts = data.draw(hnp.arrays(np.int32, count, elements=st.integers(0, contexts - 1)))
    np.testing.assert_array_equal(decode(encode(values, contexts), count, contexts), values)


@pytest.mark.parametrize(
    "values",
    [
        np.array([-(2**31), 2**31 - 1, 0, 255, -255, 256, -256, 511, 512]),
        np.zeros((3, 0), int),
        np.full((100, 100), 7),
        np.array(True),
        np.arange(-600, 600, dtype=np.int64),
    ],
    ids=["edges", "empty", "constant", "scalar", "ramp"],
)
def test_edges(values):
    np.testing.assert_array_equal(decode(encode(values), values.shape), values)


def laplacian_codes(rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    bits = rng.integers(2, 5, rows)[:, None]
    codes = np.rint(rng.laplace(scale=2.0**bits / 8, size=(rows, columns)))
    return np.clip(codes, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1).astype(np.int32), np.broadcast_to(
        bits, codes.shape
    )


def entropy_bits(values):
    counts = np.unique(values, return_counts=True)[1]
    return float(np.sum(counts * np.log2(values.size / counts)))


def test_a_long_array_comes_close_to_its_entropy_and_contexts_go_below():
    codes, bits = laplacian_codes(64, 2000)
    plain, in_contexts = (8 * len(encode(codes, c)) for c in (None, bits))
    assert plain < 1.002 * entropy_bits(codes) + 500
    assert in_contexts < 1.005 * sum(entropy_bits(codes[bits == b]) for b in np.unique(bits)) + 1500
    assert in_contexts < 0.97 * plain


def test_a_constant_array_costs_next_to_nothing():
    assert len(encode(np.full(1_000_000, -3))) < 8


def test_stored_frequencies_win_where_the_start_is_unlike_the_rest():
    values = np.concatenate([np.arange(-200, 200), np.zeros(3000, int), np.tile([1, 2], 200)])
    np.testing.assert_array_equal(decode(encode(values), values.shape), values)
    sparse = np.zeros(400, int)
    sparse[::40] = 150
    data = encode(sparse)
    np.testing.assert_array_equal(decode(data, 400), sparse)
    assert 8 * len(data) < 1.6 * entropy_bits(sparse) + 80


@pytest.mark.slow
def test_too_many_contexts_are_merged():
    values = np.tile(np.array([0, 400]), 30_000)
    contexts = np.arange(60_000)
    np.testing.assert_array_equal(decode(encode(values, contexts), values.shape, contexts), values)


def test_bytes_of_this_version_stay_readable():
    """Frozen: if this fails, what was encoded before can no longer be read."""
    codes, bits = laplacian_codes(3, 20)
    np.testing.assert_array_equal(decode(bytes.fromhex(GOLDEN), codes.shape, bits), codes)


GOLDEN = "2081a3ddc756bd108afa88fd2aea4d4d76dc947a143f959f37667bd9dec36416"


@pytest.mark.parametrize(
    "values, contexts",
    [
        (np.array([0.5]), None),
        (np.array([2**31]), None),
        (np.array([-(2**31) - 1]), None),
        (np.zeros(3, int), np.zeros(2, int)),
        (np.zeros(2, int), np.array([0, -1])),
        (np.zeros(2, int), np.array([0, 65536])),
        (np.zeros(2, int), np.array([0, 0.5])),
    ],
)
def test_wrong_arguments(values, contexts):
    with pytest.raises(ValueError, match="Received"):
        encode(values, contexts)


def test_damage_raises_or_gives_other_values_of_the_same_shape():
    rng = np.random.default_rng(2)
    codes, bits = laplacian_codes(4, 30)
    for contexts in (None, bits):
        data = encode(codes, contexts)
        for _ in range(300):
            damaged = bytearray(data[: rng.integers(len(data) + 1)])
            for _ in range(rng.integers(3)):
                if damaged:
                    damaged[rng.integers(len(damaged))] = rng.integers(256)
            try:
                assert decode(bytes(damaged), codes.shape, contexts).shape == codes.shape
            except ValueError as error:
                assert "Received" in str(error)


def test_more_bytes_than_needed_raise():
    with pytest.raises(ValueError, match="more bytes"):
        decode(encode(np.array([1, 2, 3])) + b"1234567890", 3)
