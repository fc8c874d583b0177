import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding import huffman_bits, huffman_decode, huffman_encode
from scc_tf.coding.huffman import canonical_codes, code_lengths

COUNTS = st.lists(st.integers(0, 50), max_size=40)


def least_cost(counts):
    """Total bits of Huffman's own algorithm: the two rarest are merged until one is left."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    total = 0 if len(heap) != 1 else heap[0]
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@settings(max_examples=60)
@given(COUNTS)
def test_lengths_are_those_of_huffman_and_fill_the_kraft_sum(counts):
    lengths = code_lengths(counts)
    assert int(np.dot(counts, lengths)) == least_cost(counts)
    assert ((lengths > 0) == (np.array(counts, int) > 0)).all()
    used = lengths[lengths > 0]
    assert (0.5**used).sum() == {0: 0, 1: 0.5}.get(used.size, 1)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(3, 4))
def test_no_code_under_the_limit_is_shorter(counts, limit):
    kraft = [(np.dot(counts, a), a) for a in itertools.product(range(1, limit + 1), repeat=len(counts))]
    lengths = code_lengths(counts, limit)
    assert lengths.max() <= limit
    assert np.dot(counts, lengths) == min(bits for bits, a in kraft if sum(0.5**x for x in a) <= 1)


def test_rare_symbols_keep_to_32_bits():
    fibonacci = [1, 1]
    while len(fibonacci) < 45:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths(fibonacci)
    assert lengths.max() == 32
    assert (0.5**lengths).sum() == 1
    assert np.dot(fibonacci, lengths) < 1.0001 * least_cost(fibonacci)


@settings(max_examples=40)
@given(COUNTS)
def test_canonical_codes_are_free_of_prefixes_and_in_order(counts):
    lengths = code_lengths(counts)
    words = [f"{c:0{n}b}" for c, n in zip(canonical_codes(lengths), lengths, strict=True) if n]
    for first, second in itertools.permutations(words, 2):
        assert not second.startswith(first)
    used = np.flatnonzero(lengths)
    by_length = [w for _, w in sorted(zip(lengths[used], words, strict=True), key=lambda pair: pair[0])]
    assert by_length == sorted(words)


def check_round_trip(values):
    data = huffman_encode(values)
    restored = huffman_decode(data, values.shape)
    assert restored.dtype == np.int32
    np.testing.assert_array_equal(restored, values)
    return data


@settings(max_examples=80)
@given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=0, min_side=0, max_side=9),
        elements=st.integers(-9, 9) | st.integers(0, 60_000),
    )
)
def test_any_int32_array_survives(values):
    check_round_trip(values)


@pytest.mark.parametrize(
    ("values", "size"),
    [
        (np.zeros((3, 0), int), 0),
        (np.full((100, 100), -3), 4),
        (np.array(True), 4),
        (np.repeat(np.arange(64), 3), 6 + 64 // 8 + 144 - 2),
    ],
    ids=["empty", "one symbol", "scalar", "a field of one bit for each"],
)
def test_edges(values, size):
    assert len(check_round_trip(values)) == size


def test_codes_are_within_a_bit_of_the_entropy_and_across_blocks():
    rng = np.random.default_rng(0)
    values = np.minimum(rng.geometric(0.1, 400_000), 60)
    data = check_round_trip(values)
    counts = np.unique(values, return_counts=True)[1]
    entropy = float(np.sum(counts * np.log2(values.size / counts)))
    bits = huffman_bits(values, gap_bits=1)
    assert (bits["entries"], bits["weights"] // 8 + bits["tables"] // 8) == (values.size, len(data) + 4)
    assert entropy < bits["weights"] < 1.01 * entropy
    assert bits["tables"] < 8 * 40


def test_long_codes_survive():
    counts = 2 ** np.arange(17)
    check_round_trip(np.random.default_rng(0).permutation(np.repeat(np.arange(17) ** 3, counts)))


def slow_decode(data, count):
    """The layout of the module's docstring, bit by bit, with a header of four bytes."""
    shortest, spread, low, span = data[0] + 1, data[1], data[2] // 2, data[3]
    bits = "".join(f"{byte:08b}" for byte in data[4:])
    width = (spread + 1).bit_length()
    fields = [int(bits[i * width : (i + 1) * width], 2) for i in range(span + 1)]
    lengths = [field + shortest - 1 if field else 0 for field in fields]
    words = {f"{c:0{n}b}": s for s, (c, n) in enumerate(zip(canonical_codes(lengths), lengths, strict=True)) if n}
    bits = bits[-(-(span + 1) * width // 8) * 8 :]
    values, word = [], ""
    for bit in bits:
        word += bit
        if word in words and len(values) < count:
            values.append(low + words[word])
            word = ""
    assert set(word) <= {"0"}
    return values


def test_the_bytes_are_laid_out_as_documented():
    values = np.minimum(np.random.default_rng(0).geometric(0.3, 300), 12)
    assert slow_decode(huffman_encode(values), values.size) == values.tolist()


def test_bytes_of_this_version_stay_readable():
    assert huffman_decode(bytes.fromhex("00010003a1bc00"), 7).tolist() == [0, 1, 1, 3, 3, 3, 3]
    assert huffman_decode(bytes.fromhex("00000900"), 2).tolist() == [-5, -5]


@pytest.mark.parametrize("values", [np.arange(40) % 7 % 5, np.array([5, 5, 9, 10**4, -3] * 9), np.full(9, 300)])
def test_damage_raises_or_reads_something(values):
    data = huffman_encode(values)
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(data[: rng.integers(len(data) + 1)] if rng.random() < 0.3 else data)
        if damaged:
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            assert huffman_decode(bytes(damaged), values.shape).shape == values.shape
        except ValueError as error:
            assert "Received" in str(error)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d + b"\1"])
def test_too_few_or_too_many_bytes_are_refused(change):
    for values in (np.arange(100) % 11, np.full(100, 7)):
        with pytest.raises(ValueError, match="Received"):
            huffman_decode(change(huffman_encode(values)), 100)
    with pytest.raises(ValueError, match="Received"):
        huffman_decode(huffman_encode(np.arange(9)), 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: huffman_encode([0.5]),
        lambda: huffman_encode([2**31]),
        lambda: huffman_encode([0, 2**16]),
        lambda: code_lengths([1, -1]),
        lambda: code_lengths([0.5]),
        lambda: code_lengths([1, 1, 1], limit=1),
        lambda: code_lengths([1, 1], limit=33),
        lambda: canonical_codes([1, 1, 1]),
        lambda: canonical_codes([33]),
    ],
)
def test_wrong_arguments_are_refused(call):
    with pytest.raises(ValueError, match="Received"):
        call()
