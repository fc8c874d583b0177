import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding import Reader, Writer, numbers
from scc_tf.coding.gaussian import TOTAL, Normal, _cumulative, inverse_scales


def round_trip(write, read, *values):
    writer = Writer()
    for value in values:
        write(writer, value)
    data = writer.getvalue()
    assert len(data) <= writer.bits / 8 + 4.01
    reader = Reader(data)
    restored = [read(reader, np.size(value)) for value in values]
    reader.check_end()
    return restored


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_counts(values):
    assert round_trip(numbers.write_count, lambda reader, _: numbers.read_count(reader), *values) == values


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(bool, st.integers(0, 40)), hnp.arrays(bool, st.integers(0, 3)))
def test_flags(first, second):
    restored = round_trip(numbers.write_flags, numbers.read_flags, first, second)
    np.testing.assert_array_equal(restored[0], first)
    np.testing.assert_array_equal(restored[1], second)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(-(2**31), 2**31) | st.integers(-20, 20)))
def test_integers(values):
    np.testing.assert_array_equal(round_trip(numbers.write_integers, numbers.read_integers, values)[0], values)


def bits_of(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(np.uint32, st.integers(0, 30), elements=st.integers(0, 2**32 - 1)),
    st.sampled_from([lambda v: v.view(np.float32), lambda v: (v % 4097) / np.float32(64), lambda v: v % 3 * 0.5]),
)
def test_floats_bit_for_bit(values, form):
    values = np.asarray(form(values), np.float32)
    np.testing.assert_array_equal(
        bits_of(round_trip(numbers.write_floats, numbers.read_floats, values)[0]), bits_of(values)
    )


@pytest.mark.parametrize(
    "values, most",
    [
        (np.full(1000, math.pi), 8),
        (np.zeros(1000), 6),
        (np.arange(1000) % 7 / 16 - 3, 400),
        (np.random.default_rng(0).normal(size=1000).astype(np.float16), 1750),
        (np.random.default_rng(0).normal(size=1000), 3360),
        (np.where(np.arange(1000) % 50, 0, math.pi), 85),
    ],
    ids=["constant", "zero", "sixteenths", "float16", "float32", "mostly zero"],
)
def test_floats_cost_what_their_form_needs(values, most):
    values = values.astype(np.float32)
    writer = Writer()
    numbers.write_floats(writer, values)
    assert len(writer.getvalue()) <= most
    np.testing.assert_array_equal(bits_of(numbers.read_floats(Reader(writer.getvalue()), 1000)), bits_of(values))


def test_damage_raises_or_reads_something():
    rng = np.random.default_rng(1)
    writer = Writer()
    numbers.write_integers(writer, rng.integers(-50, 50, 30))
    numbers.write_floats(writer, rng.normal(size=30))
    data = writer.getvalue()
    for _ in range(500):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        reader = Reader(bytes(damaged[: rng.integers(len(data) + 1)]))
        try:
            assert numbers.read_integers(reader, 30).shape == numbers.read_floats(reader, 30).shape == (30,)
        except ValueError as error:
            assert "Received" in str(error)


def test_the_normal_distribution_in_integers_is_right():
    exact = np.array([0.5 * (1 + math.erf(k / 1024 / 2**0.5)) for k in range(-8192, 8193)])
    np.testing.assert_allclose(_cumulative() / TOTAL, exact, atol=3e-8)
    assert _cumulative()[-1] == TOTAL
    np.testing.assert_allclose(2.0**20 / inverse_scales(), 2.0 ** (np.arange(56) / 4 - 3), rtol=2e-3)


def test_tables_of_clipped_gaussians():
    normal = Normal([12, 30], [-3, -7], [3, 6])
    tables = normal.frequencies(14)
    assert tables.shape == (2, 14)
    assert (tables[0, 7:] == 0).all()
    assert (tables[:, :7] > 0).all()
    assert tables[1, 0] > 3 * tables[1, 1]  # the tail beyond the bound
    shifted = normal.frequencies(14, np.array([[1024, 0]]))  # the mean moves by one sigma, 1 code
    np.testing.assert_allclose(shifted[0, 2:6], tables[0, 1:5], rtol=0.01)
    np.testing.assert_allclose(normal.bits(np.array([[0, 6]]))[0], np.log2(tables.sum(1) / tables[[0, 1], [3, 13]]))


@pytest.mark.parametrize("size", [1, 2, 2**16, 2**16 + 1, 2**32, 2**40])
def test_uniform_numbers_of_any_size(size):
    values = np.unique(np.clip([0, 1, size // 2, size - 1], 0, size - 1))
    writer = Writer()
    writer.uniform(values, size)
    np.testing.assert_array_equal(Reader(writer.getvalue()).uniform(len(values), size), values)


def test_rows_of_tables():
    tables = np.array([[1, 3, 0], [2, 2, 2]])
    writer = Writer()
    writer.rows(np.array([1, 2]), tables)
    assert writer.bits == pytest.approx(np.log2(4 / 3) + np.log2(3))
    assert Reader(writer.getvalue()).rows(tables).tolist() == [1, 2]
    assert Reader(b"").rows(np.zeros((0, 3))).size == 0
    writer.rows(np.zeros(0, int), np.zeros((0, 3)))
