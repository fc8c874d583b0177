import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding import Stream, entropy_bits

pytestmark = pytest.mark.slow  # the first call compiles

SHAPES = st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(0, 20), st.integers(0, 5)) | st.tuples(
    st.just(1), st.just(1), st.sampled_from([9, 16, 36, 49]), st.integers(1, 4)
)
VALUES = [st.integers(-1, 1), st.integers(-9, 9), st.integers(-(1 << 31), (1 << 31) - 1)]
GOLDEN = (
    "083ef9e1008f872093f749eb0e87aebe254c012778fc733170c7f4a3a9de992c892b1d865ff1509d6d916eaa4dafa5aa909f"
    "a406f73b20475edc3e2686c9e73083952928c58c482b7821252599"
)


def written(kernels, scales=None):
    stream = Stream()
    for kernel in kernels:
        stream.kernel(kernel, stream.channels(kernel), scales)
    return stream.getvalue()


def read(data, shapes, scales=None):
    stream, kernels = Stream(data), [np.zeros(shape, np.int32) for shape in shapes]
    for kernel in kernels:
        stream.kernel(kernel, stream.channels(kernel), scales)
    stream.check_end()
    return kernels


def check_round_trip(*kernels, scales=None):
    data = written(kernels, scales)
    for kernel, back in zip(kernels, read(data, [kernel.shape for kernel in kernels], scales), strict=True):
        np.testing.assert_array_equal(back, kernel)
    return data


def rate_trained_kernel(side=20, channels=80, seed=0):
    """Like the first kernel of a network trained for a small file: blobs of one sign, dead channels, a dead frame."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    blobs = rng.normal(size=(side, side, channels))
    for axis in (0, 1):
        blobs = blobs + np.roll(blobs, 1, axis) + np.roll(blobs, -1, axis)
    scale = np.exp(-(x**2 + y**2) / 60)[..., None] * rng.lognormal(-1, 0.5, channels) * (rng.random(channels) > 0.3)
    return np.rint(blobs * scale / 2).astype(np.int32).reshape(1, 1, side**2, channels)


def entropy_bytes(values):
    return entropy_bits(values) / 8


def gaussian_kernel(shape, deviations, low=-999, high=999, seed=0):
    """Codes like those of a trained network, rounded and clipped."""
    return np.clip(np.rint(np.random.default_rng(seed).normal(size=shape) * deviations), low, high).astype(np.int32)


@settings(max_examples=60)
@given(st.data(), st.lists(SHAPES, max_size=3), st.sampled_from(VALUES))
def test_any_kernels_survive(data, shapes, values):
    check_round_trip(*(data.draw(hnp.arrays(np.int64, shape, elements=st.just(0) | values)) for shape in shapes))


@pytest.mark.parametrize(
    "shape", [(1, 1, 196, 3), (5, 5, 1, 6), (3, 1, 2, 1), (1, 1, 0, 4), (1, 1, 49, 0), (1, 1, 1, 1)]
)
def test_extremes(shape):
    rng = np.random.default_rng(0)
    limits = np.where(rng.random(shape) < 0.5, -(1 << 31), (1 << 31) - 1)
    dense = rng.integers(-7, 8, shape, np.int8)
    for kernel in (np.zeros(shape, np.int32), dense, limits, dense > 5, np.full(shape, 3, np.uint16)):
        check_round_trip(kernel)
    assert len(written([np.zeros(shape, np.int32)])) <= 3


def test_nothing_is_no_bytes():
    assert written([]) == b""
    assert read(b"", []) == []


def test_sparse_images_cost_much_less_than_their_entropy():
    kernel = rate_trained_kernel()
    assert 0.005 < (kernel != 0).mean() < 0.1
    assert len(check_round_trip(kernel)) < 0.75 * entropy_bytes(kernel)


def test_dense_filters_cost_less_if_they_are_smooth():
    noise = np.random.default_rng(0).normal(0, 2, (7, 7, 12, 16))
    smooth = np.rint(noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)).astype(np.int32)
    data, shuffled = check_round_trip(smooth), np.random.default_rng(1).permuted(smooth)
    assert len(data) < entropy_bytes(smooth)
    assert len(data) < 0.985 * len(written([shuffled]))


def test_a_dead_channel_tells_that_the_next_kernel_does_not_read_it():
    rng = np.random.default_rng(0)
    dead = rng.random(200) < 0.5
    first, second = rng.integers(-1, 2, (2, 30, 200)) * ~dead
    kernels = first.reshape(1, 1, 30, 200), second.T.reshape(1, 1, 200, 30)
    apart = sum(len(written([kernel])) for kernel in kernels)
    assert len(check_round_trip(*kernels)) < apart - 15  # of about 25 that 200 flags take


def test_the_bytes_stay_what_they_are():
    places = np.arange(5 * 5 * 2 * 4)
    conv = (places % 7 * (places * places % 5 == 1) - 3 * (places % 11 == 4)).reshape(5, 5, 2, 4)
    dense = (places[:192] * 31 % 64 // 61 * (1 - places[:192] % 3)).reshape(1, 1, 64, 3)
    dense[0, 0, 5, 1] = -12345678
    assert check_round_trip(conv, dense).hex() == GOLDEN


def test_gaussian_channels_cost_hardly_more_than_gaussians_do():
    deviations = 2.0 ** (np.arange(48) % 6 - 1)
    kernel = gaussian_kernel((3, 3, 32, 48), deviations)
    ideal = sum(entropy_bytes(gaussian_kernel(100_000, deviation)) for deviation in deviations) * 288 / 100_000
    scales = np.rint(-16 * np.log2(deviations)).astype(int)
    assert len(check_round_trip(kernel, scales=scales)) < len(check_round_trip(kernel)) < 1.05 * ideal
    assert len(written([kernel], scales)) < 1.03 * ideal


def test_wide_codes_cost_hardly_more_than_gaussians_do():
    kernel = gaussian_kernel((3, 3, 16, 16), 3000.0, -(1 << 30), 1 << 30)
    assert len(check_round_trip(kernel)) < 1.02 * kernel.size * np.log2(3000 * np.sqrt(2 * np.pi * np.e)) / 8


def test_clipped_channels_cost_little_more_than_a_bit_per_weight():
    kernel = np.where(np.random.default_rng(0).random((3, 3, 16, 40)) < 0.5, -12, 11).astype(np.int32)
    assert len(check_round_trip(kernel, scales=np.full(40, -64))) < 1.15 * kernel.size / 8


def test_a_dense_kernel_behind_a_flattened_image_is_found_out():
    noise = np.random.default_rng(0).normal(0, 2, (6, 6, 16, 10))
    smooth = np.rint(noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)).astype(np.int32)
    assert len(check_round_trip(smooth.reshape(1, 1, 576, 10))) < len(check_round_trip(smooth)) + 25


@pytest.mark.parametrize(
    "kernel, message",
    [
        (np.zeros((3, 3), int), "shape=\\(3, 3\\)"),
        (np.zeros((1, 1, 1, 1)), "dtype=float64"),
        (np.full((1, 1, 1, 1), 1 << 31), "from 2147483648 to 2147483648"),
    ],
)
def test_refused(kernel, message):
    with pytest.raises(ValueError, match=f"Expected .* Received: .*{message}"):
        written([kernel])


def test_damage_raises_or_reads_int32():
    rng = np.random.default_rng(0)
    kernels = [rate_trained_kernel(8, 12), rng.integers(-40, 40, (3, 3, 4, 5))]
    data, shapes = written(kernels), [kernel.shape for kernel in kernels]
    with pytest.raises(ValueError, match="the stream to end"):
        read(data + b"more than the coder looks ahead", shapes)
    refused = 0
    for _ in range(100):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        damaged[rng.integers(len(damaged))] ^= rng.integers(1, 256)
        try:
            assert [kernel.shape for kernel in read(bytes(damaged), shapes)] == shapes
        except ValueError as error:
            refused += 1
            assert "Received" in str(error)
    assert refused > 90
    noise = rng.integers(0, 256, 1 << 16, np.uint8).tobytes()
    with pytest.raises(ValueError, match="Received"):
        read(noise, [(3, 3, 8, 8)])
