"""Small arrays in a stream: flags, integers and float32 values, each with few bits of its own for parameters.

Reader and writer agree on the number of values; all else is in the stream. A ``read_`` function takes what its
``write_`` function wrote.
"""

import numpy as np

from scc_tf.coding.gaussian import SCALES, Normal

__all__ = [
    "fixed_point",
    "read_count",
    "read_flags",
    "read_floats",
    "read_integers",
    "write_count",
    "write_flags",
    "write_floats",
    "write_integers",
]

_WIDEST = 4096  # a wider range of integers is written digit by digit
_MANTISSA = 23
_CONSTANT, _FLOATING, _FIXED = range(3)


def write_count(writer, value):
    """Write an integer from 0 to 2^40: its bit length in about 5 bits, then its bits."""
    length = int(value).bit_length()
    writer.uniform(min(length, 31), 32)
    if length >= 31:
        writer.uniform(length - 31, 16)
    writer.uniform(int(value) - (1 << length >> 1), 1 << max(length - 1, 0))


def read_count(reader):
    """Read a count, an ``int``."""
    length = int(reader.uniform(1, 32)[0])
    if length == 31:
        length += int(reader.uniform(1, 16)[0])
    return int(reader.uniform(1, 1 << max(length - 1, 0))[0]) + (1 << length >> 1)


def write_flags(writer, flags):
    """Write booleans ``(n,)``: how many are set, then each at that frequency."""
    flags = np.asarray(flags, bool)
    ones = int(flags.sum())
    writer.uniform(ones, flags.size + 1)
    if 0 < ones < flags.size:
        writer.symbols(flags.astype(np.int64), np.array([flags.size - ones, ones]))


def read_flags(reader, count):
    """Read booleans ``(count,)``."""
    ones = int(reader.uniform(1, count + 1)[0])
    if 0 < ones < count:
        return reader.symbols(count, np.array([count - ones, ones])).astype(bool)
    return np.full(count, ones > 0)


def write_integers(writer, values):
    """Write integers ``(n,)`` within 2^31 of 0: a center, both bounds, and each as a clipped Gaussian around it."""
    values = np.asarray(values, np.int64)
    if not values.size:
        return
    center, low, high = int(np.sort(values)[values.size // 2]), int(values.min()), int(values.max())
    write_count(writer, abs(center))
    if center:
        writer.uniform(int(center < 0), 2)
    write_count(writer, center - low)
    write_count(writer, high - center)
    if high - low >= _WIDEST:
        writer.uniform(values - low, high - low + 1)
    elif high > low:
        shifted = (values - center)[:, None]
        trials = [Normal([q], [low - center], [high - center]) for q in range(SCALES)]
        bits = [float(t.bits(shifted).sum()) for t in trials] + [values.size * np.log2(high - low + 1)]
        scale = int(np.argmin(bits))
        writer.uniform(scale, SCALES + 1)
        writer.symbols(values - low, _table(scale, low - center, high - center))


def read_integers(reader, count):
    """Read integers, int64 ``(count,)``."""
    if not count:
        return np.zeros(0, np.int64)
    center = read_count(reader)
    if center and reader.uniform(1, 2)[0]:
        center = -center
    low, high = center - read_count(reader), center + read_count(reader)
    if high - low >= 1 << 40:
        raise ValueError(f"Expected integers within 2**31 of 0. Received: from {low} to {high}")
    if high - low >= _WIDEST:
        return low + reader.uniform(count, high - low + 1)
    if high == low:
        return np.full(count, low)
    scale = int(reader.uniform(1, SCALES + 1)[0])
    return low + reader.symbols(count, _table(scale, low - center, high - center)).astype(np.int64)


def _table(scale, low, high):
    size = high - low + 1
    return np.ones(size, np.int64) if scale == SCALES else Normal([scale], [low], [high]).frequencies(size)[0]


def write_floats(writer, values):
    """Write float32 values ``(n,)``, bit for bit, in the shortest of three forms.

    Constant: one value. Fixed point: integers times ``2^-f`` with the smallest ``f`` up to 15 that is exact.
    Floating point: which are +0, the signs, the exponents as integers, and of the mantissas the leading bits that
    are not zero in all of them (10 for values that float16 holds, 7 for bfloat16, 23 at most).
    """
    values = np.asarray(values, np.float32)
    if not values.size:
        return
    bits = values.view(np.uint32).astype(np.int64)
    if (bits == bits[0]).all():
        writer.uniform(_CONSTANT, 3)
        writer.uniform(bits[0], 1 << 32)
        return
    fixed = fixed_point(values)
    if fixed is None:
        writer.uniform(_FLOATING, 3)
        _write_floating(writer, bits)
        return
    trials = [type(writer)() for _ in range(2)]
    _write_floating(trials[0], bits)
    _write_fixed(trials[1], *fixed)
    if trials[1].bits < trials[0].bits:
        writer.uniform(_FIXED, 3)
        _write_fixed(writer, *fixed)
    else:
        writer.uniform(_FLOATING, 3)
        _write_floating(writer, bits)


def read_floats(reader, count):
    """Read float32 values ``(count,)``."""
    if not count:
        return np.zeros(0, np.float32)
    form = int(reader.uniform(1, 3)[0])
    if form == _FIXED:
        fraction = int(reader.uniform(1, 16)[0])
        return np.ldexp(read_integers(reader, count).astype(np.float32), -fraction)
    bits = np.repeat(reader.uniform(1, 1 << 32), count) if form == _CONSTANT else _read_floating(reader, count)
    return bits.astype(np.uint32).view(np.float32)


def fixed_point(values):
    """The values as ``(f, integers)`` with ``integers * 2^-f`` exact, or None."""
    if not np.isfinite(values).all() or np.abs(values).max() >= 1 << 20 or (np.signbit(values) & (values == 0)).any():
        return None
    for fraction in range(16):
        scaled = np.ldexp(values.astype(np.float64), fraction)
        if (scaled == np.rint(scaled)).all() and np.abs(scaled).max() < 1 << 24:
            return fraction, scaled.astype(np.int64)
    return None


def _write_fixed(writer, fraction, integers):
    writer.uniform(fraction, 16)
    write_integers(writer, integers)


def _write_floating(writer, bits):
    write_flags(writer, bits == 0)
    bits = bits[bits != 0]
    write_flags(writer, bits >> 31 > 0)
    write_integers(writer, bits >> _MANTISSA & 255)
    mantissas = bits & ((1 << _MANTISSA) - 1)
    used = int(np.bitwise_or.reduce(mantissas, initial=0))
    dropped = (used & -used).bit_length() - 1 if used else _MANTISSA
    writer.uniform(dropped, _MANTISSA + 1)
    writer.uniform(mantissas >> dropped, 1 << (_MANTISSA - dropped))


def _read_floating(reader, count):
    zero = read_flags(reader, count)
    others = count - int(zero.sum())
    negative = read_flags(reader, others).astype(np.int64)
    exponents = read_integers(reader, others)
    if others and not 0 <= exponents.min() <= exponents.max() < 256:
        raise ValueError(f"Expected float exponents from 0 to 255. Received: {exponents.min()} to {exponents.max()}")
    dropped = int(reader.uniform(1, _MANTISSA + 1)[0])
    mantissas = reader.uniform(others, 1 << (_MANTISSA - dropped)) << dropped
    bits = np.zeros(count, np.int64)
    bits[~zero] = negative << 31 | exponents << _MANTISSA | mantissas
    return bits
