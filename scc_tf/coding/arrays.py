"""Arrays of any dtype in a `scc_tf.coding.stream.Stream`, bit for bit.

float32: the number of bits after the binary point, from 0 to 15, and then integers; or 16, and then how many bits of
the mantissas are zero in all of them, and of each value the sign, the exponent and the other bits of the mantissa.
Other dtypes: byte by byte, the first bytes of all values first.
"""

import numpy as np

__all__ = ["check_range", "code_array", "code_floats"]

_FLOATING = 16
_MANTISSA = 23
_ONE = 127  # the exponent of 1
_ZERO_BITS = 16  # about what the first exponent of a 0 costs


def code_array(stream, array):
    """Code a contiguous array of any dtype and shape, in place.

    Args:
        stream: `Stream`.
        array: the array.

    Raises:
        ValueError: if what is read is damaged.
    """
    if array.dtype == np.float32:
        code_floats(stream, array.reshape(-1))
        return
    for plane in array.reshape(-1).view(np.uint8).reshape(array.size, -1).T:
        values = plane.astype(np.int64)
        stream.numbers(values, "byte")
        plane[:] = check_range("bytes", values, 0, 255)


def code_floats(stream, values):
    """Code float32 values ``(n,)``, in place.

    Args:
        stream: `Stream`.
        values: float32 array ``(n,)``.

    Raises:
        ValueError: if what is read is damaged.

    Example:
        >>> from scc_tf.coding import Stream
        >>> writer, restored = Stream(), np.zeros(2, np.float32)
        >>> code_floats(writer, np.float32([0.75, -0.125]))
        >>> code_floats(Stream(writer.getvalue()), restored)
        >>> restored.tolist()
        [0.75, -0.125]
    """
    if not values.size:
        return
    bits = np.zeros(values.size, np.int64) if stream.reading else values.view(np.uint32).astype(np.int64)
    fraction, integers = _FLOATING, np.zeros(values.size, np.int64)
    if not stream.reading and (fixed := _fixed_point(values)) and _is_shorter(fixed[1], bits):
        fraction, integers = fixed
    fraction = check_range("bits after the point", stream.number(fraction, "fraction"), 0, _FLOATING)
    if fraction == _FLOATING:
        _code_floating(stream, bits)
        values[:] = bits.astype(np.uint32).view(np.float32)
    else:
        stream.numbers(integers, "fixed")
        check_range("integers", integers, 1 - (1 << 24), (1 << 24) - 1)
        values[:] = np.ldexp(integers.astype(np.float32), -fraction)


def _fixed_point(values):
    """The values as ``(f, integers)`` with ``integers * 2^-f`` exact, or None."""
    if not np.isfinite(values).all() or np.abs(values).max() >= 1 << 20 or (np.signbit(values) & (values == 0)).any():
        return None
    for fraction in range(_FLOATING):
        scaled = np.ldexp(values.astype(np.float64), fraction)
        if (scaled == np.rint(scaled)).all() and np.abs(scaled).max() < 1 << 24:
            return fraction, scaled.astype(np.int64)
    return None


def _is_shorter(integers, bits):
    """Whether integers have fewer bits than mantissas; lengths and exponents cost about the same, but for a 0."""
    sizes = np.abs(integers[integers != 0])
    below = np.frexp(sizes.astype(np.float64))[1] - 1
    return below.sum() < sizes.size * (_MANTISSA - _dropped(bits)) + _ZERO_BITS


def _dropped(bits):
    """How many of the last bits of the mantissas are zero."""
    used = int(np.bitwise_or.reduce(bits & (1 << _MANTISSA) - 1))
    return (used & -used).bit_length() - 1 if used else _MANTISSA


def _code_floating(stream, bits):
    dropped = check_range("bits that are zero", stream.number(_dropped(bits), "dropped"), 0, _MANTISSA)
    signs, exponents, mantissas = bits >> 31, (bits >> _MANTISSA & 255) - _ONE, (bits & (1 << _MANTISSA) - 1) >> dropped
    stream.numbers(signs, "sign")
    stream.numbers(exponents, "exponent")
    stream.uniform(mantissas, _MANTISSA - dropped)
    check_range("signs", signs, 0, 1)
    check_range("exponents", exponents, -_ONE, 255 - _ONE)
    bits[:] = signs << 31 | exponents + _ONE << _MANTISSA | mantissas << dropped


def check_range(what, values, low, high):
    """Return integers if all are within bounds, and raise ValueError otherwise."""
    least, most = int(np.min(values, initial=low)), int(np.max(values, initial=low))
    if not low <= least <= most <= high:
        raise ValueError(f"Expected {what} from {low} to {high}. Received: from {least} to {most}")
    return values
