import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding import Reader, Writer
from scc_tf.coding.kernels import read_kernels, write_kernels

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 8), st.integers(1, 4))
CODES = st.integers(-9, 9) | st.integers(-(2**31), 2**31 - 1) | st.just(0)


def round_trip(kernels, exponents=None):
    """The bytes, and the kernels and exponents read from them."""
    exponents = exponents or [np.zeros(k.shape[3], np.float32) for k in kernels]
    writer = Writer()
    write_kernels(writer, kernels, exponents)
    data = writer.getvalue()
    reader = Reader(data)
    restored = read_kernels(reader, [k.shape for k in kernels])
    reader.check_end()
    return data, *restored


def check_round_trip(kernels, exponents=None):
    data, restored, restored_exponents = round_trip(kernels, exponents)
    for ours, theirs in zip(kernels, restored, strict=True):
        assert theirs.dtype == np.int32
        np.testing.assert_array_equal(ours, theirs)
    for kernel, ours, theirs in zip(kernels, exponents or [], restored_exponents, strict=bool(exponents)):
        np.testing.assert_array_equal(np.where(kernel.any(axis=(0, 1, 2)), ours, 0), theirs)
    return data


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_kernels_and_exponents_survive(data):
    kernels = [
        data.draw(hnp.arrays(np.int32, shape, elements=CODES)) for shape in data.draw(st.lists(SHAPES, max_size=3))
    ]
    numbers = st.floats(-126, 126, width=32) | st.integers(-64, 64).map(lambda v: v / 16)
    exponents = [data.draw(hnp.arrays(np.float32, k.shape[3], elements=numbers)) for k in kernels]
    check_round_trip(kernels, exponents)


def gaussian_kernel(shape, sigma, low, high, seed=0, smooth=0.0):
    """Codes like those of a trained network; ``smooth`` is the share that neighbours in the filter have in common."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=shape)
    for axis in (0, 1):
        noise = (noise + smooth * np.roll(noise, 1, axis)) / np.sqrt(1 + smooth**2)
    return np.clip(np.rint(noise * sigma), low, high).astype(np.int32)


def entropy_bytes(codes):
    counts = np.unique(codes, return_counts=True)[1]
    return float(np.sum(counts * np.log2(codes.size / counts))) / 8


def test_channels_of_different_scales_cost_less_than_the_entropy_of_their_kernel():
    kernel = gaussian_kernel((3, 3, 32, 48), 2.0 ** (np.arange(48) % 6 - 1), -100, 100)
    per_channel = sum(entropy_bytes(kernel[..., c]) for c in range(48))
    assert len(check_round_trip([kernel])) < 1.05 * per_channel < 0.95 * entropy_bytes(kernel)


def test_smooth_filters_cost_less():
    rough, smooth = (gaussian_kernel((5, 5, 16, 16), 3, -8, 7, smooth=s) for s in (0, 0.9))
    assert len(check_round_trip([smooth])) < 0.94 * len(check_round_trip([rough]))


def test_a_dense_kernel_behind_a_flattened_image_is_found_out():
    smooth = gaussian_kernel((4, 4, 16, 10), 3, -8, 7, smooth=0.9)
    flat = smooth.reshape(1, 1, 256, 10)
    assert len(check_round_trip([flat])) < len(check_round_trip([smooth])) + 3
    check_round_trip([flat[:, :, :-3]])


def test_clipped_channels_cost_one_bit_per_weight():
    signs = np.where(gaussian_kernel((1, 1, 800, 4), 10, -1, 0) < 0, -7, 6).astype(np.int32)
    assert len(check_round_trip([signs])) < 3200 / 8 * 1.02 + 16


def test_channels_and_inputs_of_zeros_cost_next_to_nothing():
    small = gaussian_kernel((3, 3, 8, 8), 3, -8, 7)
    large = np.zeros((3, 3, 64, 80), np.int32)
    large[:, :, 8:16, 40:48] = small
    assert len(check_round_trip([large])) < len(check_round_trip([small])) + 20
    assert len(check_round_trip([np.zeros((3, 3, 64, 64), np.int32)])) <= 2
    assert round_trip([])[0] == b""


def test_sparse_and_wide_kernels_are_written_with_frequencies():
    rng = np.random.default_rng(0)
    sparse = (rng.random((3, 3, 64, 16)) < 0.02) * rng.integers(-60, 60, (3, 3, 64, 16))
    assert len(check_round_trip([sparse.astype(np.int32)])) < 1.35 * entropy_bytes(sparse)
    check_round_trip([np.array([-(2**31), 2**31 - 1, 0, 5], np.int32).reshape(1, 1, 4, 1), sparse.astype(np.int32)])


@pytest.mark.slow
def test_the_exponents_tell_the_scales():
    rng = np.random.default_rng(0)
    exponents = rng.uniform(-9, -3, 64).astype(np.float32)
    kernel = gaussian_kernel((1, 1, 64, 64), 0.2 * 2.0**-exponents, -255, 255)
    told = len(check_round_trip([kernel], [exponents]))
    not_told = len(check_round_trip([kernel], [rng.permutation(exponents)]))
    assert told < not_told - 15


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "sparse"])
def test_damage_raises_or_reads_something(kind):
    rng = np.random.default_rng(0)
    kernels = [gaussian_kernel((3, 3, 4, 5), 3, -8, 7), gaussian_kernel((1, 1, 18, 3), 2, -5, 4)]
    if kind == "sparse":
        kernels = [(np.arange(90 * 5) % 61 == 3).astype(np.int32).reshape(3, 3, 10, 5) * 300, kernels[1]]
    writer = Writer()
    write_kernels(writer, kernels, [rng.normal(size=k.shape[3]).astype(np.float32) for k in kernels])
    data, shapes = writer.getvalue(), [k.shape for k in kernels]
    for _ in range(300):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        damaged[rng.integers(min(len(damaged), 1 + rng.integers(len(data))))] = rng.integers(256)
        try:
            restored, _ = read_kernels(Reader(bytes(damaged)), shapes)
            assert [r.shape for r in restored] == shapes
        except ValueError as error:
            assert "Received" in str(error)


def test_a_channel_that_the_sample_misses_survives():
    rng = np.random.default_rng(0)
    kernel = np.where(rng.random((5, 5, 100, 80)) < 0.002, rng.integers(-3, 4, (5, 5, 100, 80)), 0).astype(np.int32)
    kernel[..., 7] = 0
    kernel[0, 0, 1, 7] = 2  # a prediction is chosen on every sixth row
    assert (kernel[..., 7] != 0).sum() == 1
    check_round_trip([kernel])
