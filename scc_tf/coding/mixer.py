"""The coder of `.scc` files: bits predicted by a mix of contexts, and an arithmetic coder; one body to write and read.

Everything is int64 arithmetic on one flat array, ``memory``, whose parts the constants below name, so that the same
bits come out on every machine. ``docs/scc-format.md`` specifies it.

A bit is predicted thus. Inputs are log-odds in units of 1/256: a constant 1, ``direct`` probabilities computed from
what is known, and ``counted`` adaptive probabilities, one slot each, that fade in as they have seen more bits. Two sets
of weights, chosen by a context each, sum them; the mean of both sums is the prediction. Then each set moves its
weights down the gradient of its own code length, and each slot its probability towards the bit.

Source: Mahoney 2005, "Adaptive weighing of context models for lossless data compression" (PAQ); logistic mixing and
    the tables ``stretch`` and ``squash`` as in lpaq1.
"""

import functools

import numpy as np

from scc_tf.coding.compiled import compiled

__all__ = [
    "code_bit",
    "code_bits",
    "decide",
    "is_beyond",
    "length_of",
    "log_odds",
    "new_memory",
    "restart",
    "start_reading",
    "upper_tail",
]

LIMIT = 2840  # log-odds are within 11.1 nats, beyond what 16 bits can say
SQUASH = LIMIT  # where log-odds of 0 are
STRETCH = 2 * LIMIT + 1
CONFIDENCE = STRETCH + (1 << 16)
RATE = CONFIDENCE + 1024
REACH = 2048  # of the table of the normal distribution: 8 standard deviations, in 1/256
NORMAL = RATE + 1024 + REACH
REGISTERS = NORMAL + REACH + 1
LOW, HIGH, CODE, NEXT, DECODING = range(REGISTERS, REGISTERS + 5)  # of the arithmetic coder
INPUTS = REGISTERS + 8
CONTEXTS = INPUTS + 32
STATE = CONTEXTS + 32  # of what is coded: 48 registers
TAPS = STATE + 48  # of two Gaussians, weights of four neighbours each, and 6 registers
WEIGHTS = TAPS + 16
SETS, STRIDE = 320, 20  # of a set of weights, the last is how often it was used
SLOTS = WEIGHTS + SETS * STRIDE
BEYOND = 256  # bytes, more than any writer has left out at the end: there a reader stops

_MASK = (1 << 40) - 1
CACHED = {"cache": True, "error_model": "numpy"}
INNER = {**CACHED, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # half a second less each


@compiled("int64(int64, int64, int64[::1], uint8[::1])", **CACHED)
def code_bit(bit, chance, memory, data):
    """Write a bit, or read it: 1 with probability ``chance / 65536``. Beyond the data are zeros."""
    spread = memory[HIGH] - memory[LOW]
    middle = memory[LOW] + (spread >> 16) * chance + ((spread & 65535) * chance >> 16)
    if memory[DECODING]:
        bit = memory[CODE] <= middle
    memory[HIGH if bit else LOW] = middle + 1 - bit
    while (memory[LOW] ^ memory[HIGH]) >> 40 == 0:
        place = memory[NEXT]
        if memory[DECODING]:
            memory[CODE] = (memory[CODE] & _MASK) << 8 | (data[place] if place < data.size else 0)
        elif place < data.size:
            data[place] = memory[LOW] >> 40
        memory[NEXT] = place + 1
        memory[LOW] = (memory[LOW] & _MASK) << 8
        memory[HIGH] = (memory[HIGH] & _MASK) << 8 | 255
    return bit


@compiled("boolean(int64[::1], uint8[::1])", **CACHED)
def is_beyond(memory, data):
    """Whether a reader is so far past the end that no writer can have written what it reads."""
    return memory[DECODING] and memory[NEXT] > data.size + BEYOND


@compiled("void(int64[::1], int64, int64[::1], uint8[::1])", **CACHED)
def code_bits(values, width, memory, data):
    """Code integers of ``width`` bits, all equally likely; ``values`` is filled when reading."""
    for i in range(values.size):
        if is_beyond(memory, data):
            return
        value = values[i]
        values[i] = 0
        for k in range(width - 1, -1, -1):
            values[i] = 2 * values[i] + code_bit(value >> k & 1, 1 << 15, memory, data)


@compiled("int64(int64, int64, int64, int64, int64, int64, int64, int64, int64[::1], uint8[::1])", **INNER)
def decide(bit, direct, counted, slots, stride, one, two, three, memory, data):  # noqa: PLR0913 - compiled functions share no objects
    """Code a bit and learn from it.

    Args:
        bit: 0 or 1; ignored when reading.
        direct: inputs that are set, the constant 1 among them.
        counted: contexts that are set.
        slots: where those of the first context are.
        stride: how far those of one context are from those of the next.
        one: a set of weights.
        two: another.
        three: another.
        memory: the state.
        data: uint8, the coded bytes.
    """
    memory[INPUTS] = 256
    for j in range(counted):
        slot = memory[slots + j * stride + memory[CONTEXTS + j]]
        trust = memory[CONFIDENCE + (slot & 1023)]
        memory[INPUTS + direct + j] = memory[STRETCH + (slot >> 16 & 65535)] * trust >> 8
    one, two, three = WEIGHTS + one * STRIDE, WEIGHTS + two * STRIDE, WEIGHTS + three * STRIDE
    first = second = third = 0
    for j in range(direct + counted):
        first += memory[one + j] * memory[INPUTS + j]
        second += memory[two + j] * memory[INPUTS + j]
        third += memory[three + j] * memory[INPUTS + j]
    first = min(max(first >> 16, -LIMIT), LIMIT)
    second = min(max(second >> 16, -LIMIT), LIMIT)
    third = min(max(third >> 16, -LIMIT), LIMIT)
    chance = min(max(memory[SQUASH + (first + second + third) // 3], 16), 65520)
    bit = code_bit(bit, chance, memory, data)
    first = (65535 * bit - memory[SQUASH + first]) * (3 + 2600 // (memory[one + STRIDE - 1] + 32))
    second = (65535 * bit - memory[SQUASH + second]) * (3 + 2600 // (memory[two + STRIDE - 1] + 32))
    third = (65535 * bit - memory[SQUASH + third]) * (3 + 2600 // (memory[three + STRIDE - 1] + 32))
    for j in range(direct + counted):
        memory[one + j] += memory[INPUTS + j] * first + (1 << 18) >> 19
        memory[two + j] += memory[INPUTS + j] * second + (1 << 18) >> 19
        memory[three + j] += memory[INPUTS + j] * third + (1 << 18) >> 19
    memory[one + STRIDE - 1] += 1
    memory[two + STRIDE - 1] += 1
    memory[three + STRIDE - 1] += 1
    for j in range(counted):
        place = slots + j * stride + memory[CONTEXTS + j]
        slot = memory[place]
        count = slot & 1023
        mine = slot >> 10 & (1 << 22) - 1 if count else chance << 6  # a slot starts from what the others knew
        mine += ((bit << 22) - bit - mine) * memory[RATE + count] >> 16
        memory[place] = slot >> 32 << 32 | mine << 10 | min(count + 1, 1000)
    return bit


@compiled("int64(int64, int64)", **INNER)
def length_of(value, most):
    """Bits of a number, at most ``most``."""
    bits = 0
    while value > 0 and bits < most:
        bits += 1
        value >>= 1
    return bits


@compiled("int64(int64, int64[::1])", **INNER)
def log_odds(share, memory):
    """Log-odds of a probability, which is in 1/65536."""
    return memory[STRETCH + min(max(share, 8), 65528)]


@compiled("int64(int64, int64[::1])", **INNER)
def upper_tail(place, memory):
    """Share of a normal distribution above a place, which is in 1/256 of its standard deviation; 2^40 is all of it."""
    return memory[NORMAL + min(max(-place, -REACH), REACH)]


# Tables --------------------------------------------------------------------------------------------------------------


def _exp_minus(numerator, denominator, one):
    """``exp(-numerator / denominator)`` in units of ``1 / one``, by its series."""
    result, term, n = 0, one, 0
    while term:
        result += -term if n % 2 else term
        n += 1
        term = term * numerator // (denominator * n)
    return result


def _squash():
    """``65536 / (1 + exp(-x / 256))`` for integers ``x`` from ``-LIMIT`` to ``LIMIT``, from 1 to 65,535."""
    one = 1 << 96
    table, power, ratio = np.zeros(2 * LIMIT + 1, np.int64), one, _exp_minus(1, 256, one)
    for x in range(LIMIT + 1):
        share = (one << 16) // (one + power)
        table[LIMIT + x] = min(share, 65535)
        table[LIMIT - x] = 65536 - share
        power = power * ratio >> 96
    return np.maximum(table, 1)


def _normal():
    """The normal distribution at -8, -8 + 1/256, …, 8, times ``2^40``.

    With ``h = 1/256`` the density obeys ``g(k+1) = g(k) r(k)``, ``r(k+1) = r(k) exp(-h^2)``.
    """
    one = 1 << 96
    density, ratio, change = one, _exp_minus(1, 1 << 17, one), _exp_minus(1, 1 << 16, one)
    area, areas = 0, [0]
    for _ in range(REACH):
        following = density * ratio >> 96
        area += density + following
        areas.append(area)
        density, ratio = following, ratio * change >> 96
    upper = [(1 << 39) + (a << 39) // area for a in areas]
    return np.array([(1 << 40) - u for u in upper[:0:-1]] + upper, np.int64)


@functools.cache
def _tables():
    """The memory's start, int64: all that is never changed. Made by integer arithmetic alone."""
    memory = np.zeros(REGISTERS, np.int64)
    squash, counts = _squash(), np.arange(1024)
    memory[: squash.size] = squash
    stretch = np.searchsorted(squash, np.arange(1 << 16), side="right") - 1 - LIMIT
    memory[STRETCH:CONFIDENCE] = np.maximum(stretch, -LIMIT)
    memory[CONFIDENCE:RATE] = 512 * counts // (2 * counts + 3)
    memory[RATE : RATE + 1024] = 655360 // (10 * counts + 18)
    memory[NORMAL - REACH : REGISTERS] = _normal()
    return memory


def new_memory(size, weights):
    """The memory before the first bit.

    Args:
        size: entries of it.
        weights: ``((first set, set after the last, weights in 1/100), …)``, those of the constant first.

    Returns:
        int64 array.
    """
    memory = np.zeros(size, np.int64)
    memory[:REGISTERS] = _tables()
    sets = memory[WEIGHTS:SLOTS].reshape(SETS, STRIDE)
    for first, after, hundredths in weights:
        sets[first:after, : len(hundredths)] = np.array(hundredths) * 65536 // 100
    memory[SLOTS:] = 1 << 31
    memory[[TAPS, TAPS + 1, TAPS + 4, TAPS + 5]] = 1 << 13
    restart(memory)
    return memory


def restart(memory):
    """Set the arithmetic coder to its start, to write."""
    memory[LOW : DECODING + 1] = 0, (1 << 48) - 1, 0, 0, 0


def start_reading(memory, data):
    """Set the arithmetic coder to read ``data``, uint8 array."""
    start = int.from_bytes(data[:6].tobytes().ljust(6, b"\0"), "big")
    memory[LOW : DECODING + 1] = 0, (1 << 48) - 1, start, 6, 1
