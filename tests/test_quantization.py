import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from scc_tf.quantization import ROUNDINGS, code_range, integer_codes, quantize, range_exponent, round_ste

LN2 = math.log(2)
each_rounding = pytest.mark.parametrize("rounding", ROUNDINGS)


def slow_code(x, bits, exponent, rounding):
    """Equation 1 for one number, in double precision; Python's round takes ties to even as well."""
    if bits == 0 and rounding == "floor":
        return 0
    scaled = min(max(x / 2.0**exponent, -(2.0 ** (bits - 1))), 2.0 ** (bits - 1) - 1)
    return round(scaled) if rounding == "nearest" else math.floor(scaled)


# Multiples of 1/64 and whole exponents: float32 is exact there, so ties are ties in both.
ticks = st.integers(-1000, 1000)
whole_exponents = st.integers(-7, 4)
some_bits = st.one_of(st.integers(0, 16), st.sampled_from([0.05, 0.9, 1.2, 2.3, 3.7, 5.5, 11.1]))


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.tuples(ticks, some_bits, whole_exponents), min_size=1, max_size=20), st.sampled_from(ROUNDINGS))
def test_quantize_is_equation_1(rows, rounding):
    x, bits, exponent = (np.float32(column) for column in zip(*rows, strict=True))
    x /= 64
    expected = [slow_code(*row, rounding) for row in zip(x.tolist(), bits.tolist(), exponent.tolist(), strict=True)]
    assert np.array(integer_codes(x, bits, exponent, rounding)).tolist() == expected
    assert np.array(quantize(x, bits, exponent, rounding)).tolist() == (expected * 2.0**exponent).tolist()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(ROUNDINGS))
def test_codes_times_the_step_are_the_quantized_values_bit_for_bit(seed, rounding):
    rng = np.random.default_rng(seed)
    x = np.float32(rng.normal(size=(50, 4)))
    bits, exponent = np.float32(rng.uniform(0, 24, 4)), np.float32(rng.uniform(-12, 2, 4))
    codes = integer_codes(x, bits, exponent, rounding)
    step = np.array(ops.power(2.0, exponent))
    np.testing.assert_array_equal(np.float32(codes) * step, quantize(x, bits, exponent, rounding))
    low, high = (np.array(bound) for bound in code_range(bits))
    assert (np.array(codes) >= np.floor(low)).all() and (np.array(codes) <= np.ceil(high)).all()


def test_inside_the_range_the_error_is_half_a_step_or_a_whole_one():
    x = np.linspace(-0.99, 0.9, 400, dtype="float32")  # fits 4 bits at the step 2^-2.9 = 0.134
    error = np.array(quantize(x, 4.0, -2.9)) - x
    assert np.abs(error).max() <= 2**-2.9 / 2 + 1e-6
    error = np.array(quantize(x, 4.0, -2.9, "floor")) - x
    assert error.max() <= 1e-6
    assert error.min() >= -(2**-2.9) - 1e-6


def test_ties_go_to_even():
    np.testing.assert_array_equal(ops.round([-0.5, 0.5, 1.5, 2.5, -2.5]), [0, 0, 2, 2, -2])
    assert np.array(integer_codes(np.float32([-0.5, 0.5, 1.5, 2.5, -1.5]), 8.0, 0.0)).tolist() == [0, 0, 2, 2, -2]


@each_rounding
def test_a_channel_without_bits_is_exactly_zero(rounding):
    x = np.float32([-1e30, -3, -0.5, -1e-9, 0, 1e-9, 0.5, 7, 1e30])
    for exponent in (-20.0, -0.3, 0.0, 5.0):
        assert not np.array(quantize(x, 0.0, exponent, rounding)).any()
        assert not np.array(integer_codes(x, 0.0, exponent, rounding)).any()
        assert not np.array(quantize(x, tf.zeros(9), exponent, rounding)).any()


def test_floor_rounds_down():
    codes = integer_codes(np.float32([-0.01, 0.99, -1.5, 100, -100]), 4.0, 0.0, "floor")
    assert np.array(codes).tolist() == [-1, 0, -2, 7, -8]


@pytest.mark.parametrize("odd", [3, 5, 7, 9, 17])
def test_fractional_bits_add_two_levels_at_the_logarithm_of_an_odd_number(odd):
    x = np.arange(-20, 20, 0.25, dtype="float32")
    threshold = math.log2(odd)

    def levels(bits):
        return len(np.unique(integer_codes(x, bits, 0.0)))

    assert levels(threshold - 1e-4) == odd - 1
    assert levels(threshold + 1e-4) == odd + 1


@pytest.mark.parametrize("bits", [1, 2, 3, 6, 8])
def test_whole_bits_give_all_levels_of_twos_complement(bits):
    codes = np.array(integer_codes(np.arange(-300, 300, dtype="float32"), float(bits), 0.0))
    assert (codes.min(), codes.max()) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert len(np.unique(codes)) == 2**bits


def gradients(x, bits, exponent, rounding="nearest"):
    values = [tf.constant(v, tf.float32) for v in (x, bits, exponent)]
    with tf.GradientTape() as tape:
        tape.watch(values)
        q = quantize(*values, rounding)
    return q.numpy(), [g.numpy() for g in tape.gradient(q, values)]


@each_rounding
@pytest.mark.parametrize("bits", [1.3, 3.0, 5.7])
@pytest.mark.parametrize("exponent", [-3.2, 0.0, 1.0])
def test_gradients_inside_the_range(bits, exponent, rounding):
    for share in (-0.9, -0.2, 0.0):
        x = share * 2 ** (bits - 1 + exponent)
        q, (to_x, to_bits, to_exponent) = gradients(x, bits, exponent, rounding)
        assert (to_x, to_bits) == (pytest.approx(1), 0)
        assert to_exponent == pytest.approx(LN2 * (q - x), abs=1e-5)


@each_rounding
@pytest.mark.parametrize(("bits", "exponent"), [(1.3, -3.2), (3.0, 0.0), (5.7, 1.0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_outside_the_range(sign, bits, exponent, rounding):
    q, (to_x, to_bits, to_exponent) = gradients(sign * 1000.0, bits, exponent, rounding)
    assert to_x == 0
    assert to_bits == pytest.approx(sign * LN2 * 2 ** (exponent + bits - 1), rel=1e-5)
    assert to_exponent == pytest.approx(LN2 * q, rel=1e-5)


@pytest.mark.parametrize(("x", "side"), [(5.0, 1), (-5.0, 0)])
def test_the_gradient_to_the_bits_is_the_slope_of_the_bound(x, side):
    def bound(bits):
        return float(code_range(tf.constant(bits))[side]) * 2**-1.0

    slope = (bound(2.51) - bound(2.49)) / 0.02
    assert gradients(x, 2.5, -1.0)[1][1] == pytest.approx(slope, rel=1e-3)


def test_gradients_without_bits():
    """The rows above and below hold at b = 0 too, except that floor masks the channel."""
    for sign in (1, -1):
        _, (to_x, to_bits, _) = gradients(sign * 3.0, 0.0, 0.0)
        assert (to_x, to_bits) == (0, pytest.approx(sign * LN2 / 2))
        assert gradients(sign * 3.0, 0.0, 0.0, "floor")[1] == [0, 0, 0]


@pytest.mark.slow
def test_gradients_sum_over_the_channel():
    x, bits, exponent = tf.random.normal((7, 3)), tf.fill((1, 3), 2.0), tf.zeros((1, 3))
    with tf.GradientTape() as tape:
        tape.watch(exponent)
        q = quantize(x, bits, exponent)
    np.testing.assert_allclose(
        tape.gradient(q, exponent)[0],
        [sum(gradients(v, 2.0, 0.0)[1][2] for v in column) for column in x.numpy().T],
        rtol=1e-5,
    )


@each_rounding
def test_round_ste_passes_the_gradient_straight_through(rounding):
    x = tf.constant([-1.7, 0.2, 3.5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = round_ste(x, rounding) ** 2
    rounded = np.round(x) if rounding == "nearest" else np.floor(x)
    np.testing.assert_array_equal(round_ste(x, rounding), rounded)
    np.testing.assert_array_equal(tape.gradient(y, x), 2 * rounded)


@pytest.mark.parametrize("bits", [1.0, 2.0, 3.5, 8.0])
def test_at_the_range_exponent_one_bit_less_clips(bits):
    x = np.float32(np.random.default_rng(1).normal(size=(40, 3)) * [0.01, 1, 30])
    exponent = np.array(range_exponent(x, bits, (0,)))
    assert exponent.shape == (1, 3)
    step = 2**exponent

    def clipped(b):
        return np.abs(np.array(quantize(x, b, exponent)) - x).max(axis=0) / step[0]

    assert (clipped(bits) <= 1 + 1e-3).all()  # the largest positive code is one step short
    np.testing.assert_allclose(np.abs(x).max(axis=0), step[0] * 2 ** (bits - 1), rtol=1e-5)
    low, high = (np.array(bound) * step for bound in code_range(bits - 1))
    assert ((x < low) | (x > high)).any(axis=0).all()


def test_the_range_exponent_of_zeros_is_finite():
    exponent = np.array(range_exponent(np.zeros((4, 2), "float32"), 8.0, (0,)))
    assert np.isfinite(exponent).all()
    assert not np.array(quantize(np.zeros((4, 2), "float32"), 8.0, exponent)).any()


@pytest.mark.parametrize("function", [round_ste, lambda x, rounding: quantize(x, 4.0, 0.0, rounding)])
def test_an_unknown_rounding_is_refused(function):
    with pytest.raises(ValueError, match=r"nearest.*Received: rounding='up'"):
        function(np.float32([1.0]), rounding="up")
