"""Arrays of floats in a mixed stream, bit for bit.

float32, an array after the other: the number of bits after the binary point, from 0 to 15, and then integers; or 16,
and then how many bits of the mantissas are zero in all of them, and of each value the sign, the exponent and the other
bits of the mantissa. Other dtypes: byte by byte.
"""

import numpy as np

from scc_tf.coding.mixing.kinds import BYTE, DROPPED, EXPONENT, FIXED, FRACTION, SIGN
from scc_tf.coding.numbers import fixed_point

__all__ = ["code_array", "code_floats"]

_FLOATING = 16
_MANTISSA = 23
_ONE = 127  # the exponent of 1
_ZERO_BITS = 16  # about what the first exponent of a 0 costs


def code_array(coder, array):
    """Code an array of any dtype and shape, in place.

    Args:
        coder: `scc_tf.coding.mixing.MixedCoder`.
        array: contiguous array.

    Raises:
        ValueError: if what is read is damaged.
    """
    if array.dtype == np.float32:
        code_floats(coder, array.reshape(-1))
        return
    planes = array.reshape(-1).view(np.uint8).reshape(array.size, -1)
    for plane in planes.T:
        values = plane.astype(np.int64)
        coder.numbers(values, BYTE)
        _check(values, 0, 255, "bytes")
        plane[:] = values


def code_floats(coder, values):
    """Code float32 values ``(n,)``, in place.

    Args:
        coder: `scc_tf.coding.mixing.MixedCoder`.
        values: float32 array ``(n,)``.

    Raises:
        ValueError: if what is read is damaged.

    Example:
        >>> from scc_tf.coding.mixing import MixedCoder
        >>> writer, restored = MixedCoder(), np.zeros(2, np.float32)
        >>> code_floats(writer, np.float32([0.75, -0.125]))
        >>> code_floats(MixedCoder(writer.getvalue()), restored)
        >>> restored.tolist()
        [0.75, -0.125]
    """
    if not values.size:
        return
    bits = np.zeros(values.size, np.int64) if coder.reading else values.view(np.uint32).astype(np.int64)
    fraction, integers = _FLOATING, np.zeros(values.size, np.int64)
    if not coder.reading and (fixed := fixed_point(values)) and _is_shorter(fixed[1], bits):
        fraction, integers = fixed
    fraction = coder.number(fraction, FRACTION)
    _check(fraction, 0, _FLOATING, "bits after the point")
    if fraction == _FLOATING:
        _code_floating(coder, bits)
        values[:] = bits.astype(np.uint32).view(np.float32)
    else:
        coder.numbers(integers, FIXED)
        _check(integers, 1 - (1 << 24), (1 << 24) - 1, "integers")
        values[:] = np.ldexp(integers.astype(np.float32), -fraction)


def _is_shorter(integers, bits):
    """Whether integers have fewer bits than mantissas; lengths and exponents cost about the same, but for a 0."""
    sizes = np.abs(integers[integers != 0])
    below = np.frexp(sizes.astype(np.float64))[1] - 1
    return below.sum() < sizes.size * (_MANTISSA - _dropped(bits)) + _ZERO_BITS


def _dropped(bits):
    """How many of the last bits of the mantissas are zero."""
    used = int(np.bitwise_or.reduce(bits & (1 << _MANTISSA) - 1))
    return (used & -used).bit_length() - 1 if used else _MANTISSA


def _code_floating(coder, bits):
    dropped = coder.number(_dropped(bits), DROPPED)
    _check(dropped, 0, _MANTISSA, "bits that are zero")
    signs, exponents, mantissas = bits >> 31, (bits >> _MANTISSA & 255) - _ONE, (bits & (1 << _MANTISSA) - 1) >> dropped
    coder.numbers(signs, SIGN)
    coder.numbers(exponents, EXPONENT)
    coder.uniform(mantissas, _MANTISSA - dropped)
    _check(signs, 0, 1, "signs")
    _check(exponents, -_ONE, 255 - _ONE, "exponents")
    bits[:] = signs << 31 | exponents + _ONE << _MANTISSA | mantissas << dropped


def _check(values, low, high, what):
    least, most = int(np.min(values, initial=low)), int(np.max(values, initial=low))
    if not low <= least <= most <= high:
        raise ValueError(f"Expected {what} from {low} to {high}. Received: from {least} to {most}")
