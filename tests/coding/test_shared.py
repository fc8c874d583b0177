import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding import Reader, Writer, huffman_bits, read_shared, write_shared
from scc_tf.coding.shared import CODERS

each_coder = pytest.mark.parametrize("coder", CODERS)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 20), st.integers(1, 5))


def packed(indices, clusters, coder="range", gap_bits=None):
    writer = Writer()
    bits = write_shared(writer, indices, clusters, coder, gap_bits)
    np.testing.assert_allclose(sum(bits.values()), writer.bits)
    assert min(bits.values()) >= 0
    return writer.getvalue(), bits


def check_round_trip(indices, clusters, coder="range", gap_bits=None):
    """The bytes, and what its parts take."""
    data, bits = packed(indices, clusters, coder, gap_bits)
    reader = Reader(data)
    restored = read_shared(reader, indices.shape, clusters, coder)
    reader.check_end()
    assert restored.dtype == np.int32
    np.testing.assert_array_equal(restored, indices)
    return data, bits


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from(CODERS), st.sampled_from([1, 2, 16, 300, 65535]), st.sampled_from([None, 1, 4, 5, 8]))
def test_any_indices_survive(data, coder, clusters, gap_bits):
    elements = st.just(0) | st.integers(0, clusters)
    check_round_trip(data.draw(hnp.arrays(np.int32, data.draw(SHAPES), elements=elements)), clusters, coder, gap_bits)


@each_coder
@pytest.mark.parametrize("shape", [(1, 1, 784, 3), (5, 5, 1, 6), (2, 1, 3, 1), (1, 1, 0, 4), (1, 1, 49, 0)])
@pytest.mark.parametrize("clusters", [1, 7])
def test_extremes(shape, clusters, coder):
    rng = np.random.default_rng(0)
    single = np.zeros(shape, np.int32)
    if single.size:
        single.flat[single.size // 2] = clusters
    for indices in (np.zeros(shape, np.int32), rng.integers(1, clusters + 1, shape), single):
        check_round_trip(indices, clusters, coder)


def pruned_kernel(side=28, channels=60, seed=0):
    """Like the first kernel of a pruned network: ``(1, 1, side**2, channels)``, a frame of pixels is never read."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    bell = np.exp(-(x**2 + y**2) / 60) * (np.maximum(abs(x), abs(y)) < side / 2 - 2)
    density = 0.1 * bell.reshape(-1, 1) * rng.lognormal(0, 1, channels) * (rng.random(channels) > 0.3)
    kept = rng.random(density.shape) < density
    clusters = np.clip(np.rint(8 + 3 * rng.laplace(size=density.shape)), 1, 15)
    return (kept * clusters).astype(np.int32).reshape(1, 1, *density.shape)


def entropy_bytes(values):
    counts = np.unique(values, return_counts=True)[1]
    return float(np.sum(counts * np.log2(values.size / counts))) / 8


def test_positions_cost_less_than_the_entropy_of_their_flags_and_huffman_codes():
    indices = pruned_kernel()
    flags, values = entropy_bytes(indices != 0), entropy_bytes(indices[indices != 0])
    data, bits = check_round_trip(indices, 15)
    assert bits["indices"] / 8 < 0.85 * flags
    assert len(data) < 0.9 * (flags + values)
    assert len(data) < 0.85 * len(check_round_trip(indices, 15, "huffman")[0])


def test_weights_that_are_alike_where_they_are_neighbours_cost_less():
    rng = np.random.default_rng(0)
    blobs = rng.normal(size=(9, 9, 2, 40))
    for axis in (0, 1):
        blobs = blobs + np.roll(blobs, 1, axis) + np.roll(blobs, -1, axis)
    indices = np.where(abs(blobs) > 5, np.clip(np.rint(blobs) + 8, 1, 15), 0).astype(np.int32)
    alike, mixed = packed(indices, 15)[1], packed(rng.permuted(indices, axis=3), 15)[1]
    assert alike["weights"] < 0.9 * mixed["weights"]
    assert alike["indices"] < 0.95 * mixed["indices"]


def test_dead_channels_and_inputs_cost_next_to_nothing():
    small = pruned_kernel(8, 20)
    large = np.zeros((1, 1, 64 * 9, 60), np.int32)
    large[:, :, :64, 20:40] = small
    assert len(check_round_trip(large, 15)[0]) < len(check_round_trip(small, 15)[0]) + 60
    for coder in CODERS:
        assert len(check_round_trip(np.zeros((3, 3, 64, 64), np.int32), 15, coder)[0]) <= 8


def test_the_gap_width_that_is_smallest_is_taken():
    indices = pruned_kernel(channels=12)
    sizes = {bits: len(packed(indices, 15, "huffman", bits)[0]) for bits in (4, 5, 8)}
    assert len(packed(indices, 15, "huffman")[0]) <= min(sizes.values()) < max(sizes.values())


def test_the_columns_of_the_paper():
    indices = pruned_kernel(channels=12)
    columns = huffman_bits(indices, 5)
    bits = packed(indices, 15, "huffman", 5)[1]
    assert columns["gap_bits"] == 5
    assert columns["entries"] > np.count_nonzero(indices)  # fillers
    np.testing.assert_allclose(columns["weight"] * columns["entries"], bits["weights"])
    np.testing.assert_allclose(columns["index"] * columns["entries"], bits["indices"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros((3, 3), int), 2), "shape=\\(3, 3\\)"),
        ((np.zeros((1, 1, 1, 1)), 2), "dtype=float64"),
        ((np.zeros((1, 1, 1, 1), int), 0), "clusters=0"),
        ((np.full((1, 1, 1, 1), 3), 2), "from 3 to 3"),
        ((np.full((1, 1, 1, 1), -1), 2), "from -1 to -1"),
        ((np.zeros((1, 1, 1, 1), int), 2, "zip"), "coder='zip'"),
        ((np.zeros((1, 1, 1, 1), int), 2, "huffman", 0), "gap_bits=0"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=f"Expected .* Received: .*{message}"):
        write_shared(Writer(), *arguments)


@each_coder
def test_damage_raises_or_reads_indices(coder):
    rng = np.random.default_rng(0)
    indices = pruned_kernel(8, 6)
    data, _ = packed(indices, 15, coder)
    for _ in range(200):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        damaged[rng.integers(min(len(damaged), 1 + rng.integers(len(data))))] = rng.integers(256)
        try:
            restored = read_shared(Reader(bytes(damaged)), indices.shape, 15, coder)
            assert restored.shape == indices.shape
            assert 0 <= restored.min() <= restored.max() <= 15
        except ValueError as error:
            assert "Received" in str(error)
