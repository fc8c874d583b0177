import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding.mixing import centered, decode_mixed, encode_mixed, uncentered

pytestmark = pytest.mark.slow  # the first call compiles

SHAPES = st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(0, 20), st.integers(0, 5)) | st.tuples(
    st.just(1), st.just(1), st.sampled_from([9, 16, 36, 49]), st.integers(1, 4)
)
VALUES = [st.integers(-1, 1), st.integers(-9, 9), st.integers(-(1 << 31), (1 << 31) - 1)]
GOLDEN = (
    "06bf2246bdaf595f2f4794be4d5cd4f5ff3452ed628f32c71d72c65d14d0531e6c1251c160c612ce2de9a8a5447fd20a798d"
    "325d14c2390b4ea8035ab6e5908ed59ae9ab236666d951"
)


def check_round_trip(*kernels):
    data = encode_mixed(kernels)
    restored = decode_mixed(data, [kernel.shape for kernel in kernels])
    for kernel, back in zip(kernels, restored, strict=True):
        assert back.dtype == np.int32
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
    counts = np.unique(values, return_counts=True)[1]
    return float(np.sum(counts * np.log2(values.size / counts))) / 8


@settings(deadline=None, max_examples=100)
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
    assert len(encode_mixed([np.zeros(shape, np.int32)])) <= 3


def test_nothing_is_no_bytes():
    assert encode_mixed([]) == b""
    assert decode_mixed(b"", []) == []


def test_sparse_images_cost_much_less_than_their_entropy():
    kernel = rate_trained_kernel()
    assert 0.005 < (kernel != 0).mean() < 0.1
    assert len(check_round_trip(kernel)) < 0.75 * entropy_bytes(kernel)


def test_dense_filters_cost_less_if_they_are_smooth():
    noise = np.random.default_rng(0).normal(0, 2, (7, 7, 12, 16))
    smooth = np.rint(noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)).astype(np.int32)
    data, shuffled = check_round_trip(smooth), np.random.default_rng(1).permuted(smooth)
    assert len(data) < entropy_bytes(smooth)
    assert len(data) < 0.985 * len(encode_mixed([shuffled]))


def test_a_dead_channel_tells_that_the_next_kernel_does_not_read_it():
    rng = np.random.default_rng(0)
    dead = rng.random(200) < 0.5
    first, second = rng.integers(-1, 2, (2, 30, 200)) * ~dead
    kernels = first.reshape(1, 1, 30, 200), second.T.reshape(1, 1, 200, 30)
    apart = sum(len(encode_mixed([kernel])) for kernel in kernels)
    assert len(check_round_trip(*kernels)) < apart - 15  # of about 25 that 200 flags take


def test_the_bytes_stay_what_they_are():
    places = np.arange(5 * 5 * 2 * 4)
    conv = (places % 7 * (places * places % 5 == 1) - 3 * (places % 11 == 4)).reshape(5, 5, 2, 4)
    dense = (places[:192] * 31 % 64 // 61 * (1 - places[:192] % 3)).reshape(1, 1, 64, 3)
    dense[0, 0, 5, 1] = -12345678
    assert check_round_trip(conv, dense).hex() == GOLDEN


def test_clusters_are_numbered_from_their_center():
    indices = np.arange(17).reshape(1, 1, 17, 1)
    for center in range(17):
        codes = centered(indices, center)
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(np.sign(codes[indices > 0]), np.where(indices[indices > 0] > center, 1, -1))
        np.testing.assert_array_equal(uncentered(codes, center, 16), indices)
    with pytest.raises(ValueError, match=r"Expected clusters from 1 to 4\. Received: -1 to 5"):
        uncentered(np.array([-4, 0, 3]), 2, 4)


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
        encode_mixed([kernel])


def test_damage_raises_or_reads_int32():
    rng = np.random.default_rng(0)
    kernels = [rate_trained_kernel(8, 12), rng.integers(-40, 40, (3, 3, 4, 5))]
    data, shapes = encode_mixed(kernels), [kernel.shape for kernel in kernels]
    with pytest.raises(ValueError, match="the stream to end"):
        decode_mixed(data + b"more than the coder looks ahead", shapes)
    refused = 0
    for _ in range(100):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        damaged[rng.integers(len(damaged))] ^= rng.integers(1, 256)
        try:
            assert [kernel.shape for kernel in decode_mixed(bytes(damaged), shapes)] == shapes
        except ValueError as error:
            refused += 1
            assert "Received" in str(error)
    assert refused > 90
    noise = rng.integers(0, 256, 1 << 16, np.uint8).tobytes()
    with pytest.raises(ValueError, match="Received"):
        decode_mixed(noise, [(3, 3, 8, 8)])
