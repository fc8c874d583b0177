"""The models of texts and of numbers, compiled; one body for both directions.

A text is coded byte by byte, bit by bit. Each bit has a prediction from every context: the last bytes, the last bytes
with every number taken for one sign (so that a known text with other numbers is still known), and what followed when
the same was last seen. A number is coded as whether it is 0, its sign, its length in bits, and its bits, with what
the numbers before it were.

A prediction is a slot of a table: a probability (22 bits), how often it was used (10 bits), and above them which of the
contexts that fall on this slot it belongs to. It enters as two inputs: its log-odds, and those of a map that has
learned what such a probability after so many uses is worth. Two sets of weights sum them all as in
`scc_tf.coding.mixing.model`, whose arithmetic coder takes the bit.

Everything is int64 arithmetic on one flat array, ``state``, whose parts the constants below name. Numba notices a
change of this file only, so nothing compiled may read a constant of another one.

Source: as for `scc_tf.coding.mixing.model`; the maps are the indirect contexts of PAQ8 (Mahoney 2005).
"""

import numba

from scc_tf.coding.mixing.compiled import compiled, wrapped
from scc_tf.coding.mixing.model import code_bit, is_beyond

LIMIT = 2840  # log-odds are within 11.1 nats
SQUASH = LIMIT  # where log-odds of 0 are
STRETCH = 2 * LIMIT + 1
CONFIDENCE = STRETCH + (1 << 16)
RATE = CONFIDENCE + 1024
INPUTS = RATE + 1024
CONTEXTS = INPUTS + 64  # the slot of each
PLACES = CONTEXTS + 32  # the entry of its map
HASHES = PLACES + 32  # of the contexts of a byte
PLAIN_END, DIGITS, NUMBER, MATCH, _, LENGTH, _ = range(HASHES + 32, HASHES + 39)  # of a text; two matches
SKELETON = HASHES + 39  # hash of all of it, every number taken for one
KIND, GROUP, BEFORE = range(HASHES + 40, HASHES + 43)  # of numbers
MAPS = HASHES + 48
USES, GRADES = 8, 32  # a map tells apart so many uses and probabilities
MAP = USES * GRADES
TEXT, NUMBERS = 14, 4  # contexts of each
SETS = MAPS + (TEXT + NUMBERS) * MAP
STRIDE = 2 * TEXT + 2  # of a set, the last is how often it was used
TEXT_SETS, NUMBER_SETS = 48, 80
SEEN = SETS + (TEXT_SETS + NUMBER_SETS) * STRIDE  # where what was hashed last stood
SEEN_BITS = 14
SLOTS = SEEN + (2 << SEEN_BITS)
SLOT_BITS = 20
NUMBER_SLOTS = SLOTS + (1 << SLOT_BITS)
NUMBER_BITS = 16
END = NUMBER_SLOTS + (1 << NUMBER_BITS)

_CACHED = {"cache": True, "error_model": "numpy"}
_INNER = {**_CACHED, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@compiled("int64(int64, int64, int64)", **_INNER)
def _hash(value, more, bits):
    """A number below ``2**bits``."""
    mixed = (value * 0x2545F491 + more + 1) * 0x9E3779B97F4A7C1
    return (mixed ^ mixed >> 29) * 0x2545F4914F6CDD1 >> 20 & (1 << bits) - 1


if numba.config.DISABLE_JIT:

    def _hash(value, more, bits):
        """The same where integers do not wrap around by themselves."""
        mixed = wrapped((value * 0x2545F491 + more + 1) * 0x9E3779B97F4A7C1)
        return wrapped((mixed ^ mixed >> 29) * 0x2545F4914F6CDD1) >> 20 & (1 << bits) - 1


@compiled("void(int64, int64, int64, int64, int64[::1])", **_INNER)
def _enter(j, table, bits, hashed, state):
    """Find the slot of context ``j``; one that belongs to another context is taken over."""
    place, owner = table + hashed % (1 << bits), hashed >> bits & (1 << 30) - 1
    if state[place] >> 32 != owner:
        state[place] = owner << 32 | 1 << 31
    state[CONTEXTS + j] = place


@compiled("void(int64, int64, int64, int64[::1])", **_INNER)
def _learn(bit, place, most, state):
    """Move a probability towards a bit, by the less the more often it was used."""
    uses, mine = state[place] & 1023, state[place] >> 10 & (1 << 22) - 1
    mine += ((bit << 22) - bit - mine) * state[RATE + uses] >> 16
    state[place] = state[place] >> 32 << 32 | mine << 10 | min(uses + 1, most)


@compiled("int64(int64, int64, int64, int64, int64, int64[::1], int64[::1], uint8[::1])", **_INNER)
def _decide(bit, counted, maps, one, two, state, memory, data):
    """Code a bit whose contexts are set, with the weight sets ``one`` and ``two``, and learn from it."""
    state[INPUTS] = 256
    for j in range(counted):
        slot = state[state[CONTEXTS + j]]
        uses, logit = slot & 1023, state[STRETCH + (slot >> 16 & 65535)]
        grade = (logit + LIMIT) * (GRADES - 1) // (2 * LIMIT)
        place = state[PLACES + j] = MAPS + ((maps + j) * USES + min(uses, USES - 1)) * GRADES + grade
        state[INPUTS + 2 * j + 1] = logit * state[CONFIDENCE + uses] >> 8
        state[INPUTS + 2 * j + 2] = state[STRETCH + (state[place] >> 16)] if uses else 0
    one = SETS + one * STRIDE
    two = SETS + two * STRIDE
    first = second = 0
    for j in range(2 * counted + 1):
        first += state[one + j] * state[INPUTS + j]
        second += state[two + j] * state[INPUTS + j]
    first = min(max(first >> 16, -LIMIT), LIMIT)
    second = min(max(second >> 16, -LIMIT), LIMIT)
    chance = min(max(state[SQUASH + (first + second >> 1)], 4), 65532)
    bit = code_bit(bit, chance, memory, data)
    first = (65535 * bit - state[SQUASH + first]) * (2 + 600 // (state[one + STRIDE - 1] + 20))
    second = (65535 * bit - state[SQUASH + second]) * (2 + 600 // (state[two + STRIDE - 1] + 20))
    state[one + STRIDE - 1] += 1
    state[two + STRIDE - 1] += 1
    for j in range(2 * counted + 1):
        state[one + j] += state[INPUTS + j] * first + (1 << 17) >> 18
        state[two + j] += state[INPUTS + j] * second + (1 << 17) >> 18
    for j in range(counted):
        if state[state[CONTEXTS + j]] & 1023:
            _learn(bit, state[PLACES + j], 255, state)
        else:  # a slot starts from what the others knew
            state[state[CONTEXTS + j]] += (chance << 16) - (1 << 31)
        _learn(bit, state[CONTEXTS + j], 255, state)
    return bit


@compiled("int64(uint8[::1], int64, int64, int64)", **_INNER)
def _last(text, end, order, more):
    """A hash of the last ``order`` bytes and of another number."""
    mixed = order
    for k in range(max(end - order, 0), end):
        mixed = _hash(mixed, text[k], 40)
    return _hash(mixed, more, 40)


@compiled("void(uint8[::1], int64, uint8[::1], int64[::1])", **_INNER)
def _prepare(text, place, plain, state):
    """Find what matches, and hash the contexts of the byte at ``place``."""
    end, number, digits = state[PLAIN_END], state[NUMBER], state[DIGITS]
    for j in range(2):
        key = SEEN + (j << SEEN_BITS) + _last(plain, end, 12 + 20 * j, digits) % (1 << SEEN_BITS)
        right = place and state[MATCH + j] and text[state[MATCH + j]] == text[place - 1]
        state[LENGTH + j] = state[LENGTH + j] + 1 if right else 0
        state[MATCH + j] = state[MATCH + j] + 1 if right and j else state[key]
        state[key] = place
    for j in range(5):
        state[HASHES + j] = _last(text, place, j + 1 + (j == 4), 0)
    for j in range(4):
        state[HASHES + 5 + j] = _last(plain, end, 4 << j, number)
    state[HASHES + 9] = _hash(state[SKELETON], number, 40)
    state[HASHES + 13] = _last(plain, end, 8, 0)


@compiled("void(int64, uint8[::1], int64[::1])", **_INNER)
def _append(byte, plain, state):
    """Note a byte; in ``plain`` every number is one 0."""
    digit = 48 <= byte < 58
    if not digit or not state[DIGITS]:
        plain[state[PLAIN_END]] = 48 if digit else byte
        state[SKELETON] = _hash(state[SKELETON], plain[state[PLAIN_END]], 40) if byte else 0
        state[PLAIN_END] += 1
    state[DIGITS] = state[DIGITS] + 1 if digit else 0
    state[NUMBER] = _hash(state[NUMBER], byte, 40) if digit else 0


@compiled("int64(int64)", **_INNER)
def _length(value):
    bits = 0
    while value > 0:
        bits += 1
        value >>= 1
    return bits


@compiled("int64(int64, uint8[::1], int64, int64[::1])", **_INNER)
def _expected(j, text, known, state):
    """The byte that a match promises, and 0 if the bits that are known say otherwise."""
    byte = 256 + text[state[MATCH + j]]
    bits = _length(known)
    return byte if state[MATCH + j] and byte >> 9 - bits == known else 0


@compiled("int64(uint8[::1], int64, int64, uint8[::1], int64[::1], int64[::1], uint8[::1])", **_CACHED)
def code_text(text, start, most, plain, state, memory, data):
    """Code ASCII up to and including a 0, another byte, or up to ``most``; returns where it ends.

    Args:
        text: uint8, all that was coded before, from ``start`` on the bytes; filled when decoding.
        start: int.
        most: int.
        plain: uint8, as long; what `_append` made of it.
        state: the state.
        memory: that of the arithmetic coder.
        data: uint8, the coded bytes.
    """
    for place in range(start, most):
        _prepare(text, place, plain, state)
        known, byte = 1, text[place]
        for k in range(7, -1, -1):
            one, two = _expected(0, text, known, state), _expected(1, text, known, state)
            grades = 0
            if one:
                grades = 1 + (state[LENGTH] > 7) + (state[LENGTH] > 31)
            if two:
                grades += 4 + 4 * (state[LENGTH + 1] > 7) + 4 * (state[LENGTH + 1] > 31)
            state[HASHES + 10] = _hash(one, min(state[LENGTH], 15), 40)
            state[HASHES + 11] = _hash(two, min(state[LENGTH + 1], 15), 40)
            state[HASHES + 12] = _hash(one << 9 | two, state[HASHES + 13], 40)
            for j in range(TEXT):
                _enter(j, SLOTS, SLOT_BITS, _hash(_hash(state[HASHES + j], j, 40), known, 50), state)
            inside = min(state[DIGITS], 1)
            bit = _decide(byte >> k & 1, TEXT, 0, 2 * grades + inside, 32 + 2 * k + inside, state, memory, data)
            known = 2 * known + bit
        text[place] = known & 255
        _append(text[place], plain, state)
        is_text = 31 < text[place] < 127  # what is damaged is soon none, and need not be decoded to its end
        if not is_text or is_beyond(memory, data):
            return place + 1
    return most


@compiled("int64(int64, int64, int64, int64[::1], int64[::1], uint8[::1])", **_INNER)
def _code_node(bit, node, sign, state, memory, data):
    """Code one decision of a number."""
    kind = state[KIND]
    for j, more in enumerate((0, 1 + sign, 3 + state[GROUP], -1 - state[BEFORE])):
        _enter(j, NUMBER_SLOTS, NUMBER_BITS, _hash(256 * kind + node, more, 50), state)
    return _decide(bit, NUMBERS, TEXT, TEXT_SETS + kind, TEXT_SETS + 16 + min(node, 63), state, memory, data)


@compiled("void(int64[::1], int64, int64, int64[::1], int64[::1], uint8[::1])", **_CACHED)
def code_numbers(values, kind, group, state, memory, data):
    """Code integers within 2^62 of 0.

    Args:
        values: int64; filled when decoding.
        kind: what they are, from 0 to 15: numbers of one kind are alike,
        group: and those of one group more so; any number, another for each group.
        state: the state.
        memory: that of the arithmetic coder.
        data: uint8, the coded bytes.
    """
    state[KIND], state[GROUP], state[BEFORE] = kind, group, 0
    for i in range(values.size):
        if is_beyond(memory, data):
            return
        value = values[i]
        if not _code_node(value != 0, 0, 0, state, memory, data):
            values[i] = state[BEFORE] = 0
            continue
        sign = _code_node(value > 0, 1, 0, state, memory, data)
        size, length = abs(value), 1
        while length < 62 and _code_node(size >> length > 0, 1 + length, sign, state, memory, data):
            length += 1
        found = 1
        for k in range(length - 2, -1, -1):
            bit = size >> k & 1
            if found < 8:
                bit = _code_node(bit, 64 + 8 * min(length, 15) + found, sign, state, memory, data)
            else:
                bit = code_bit(bit, 1 << 15, memory, data)
            found = 2 * found + bit
        values[i] = found if sign else -found
        state[BEFORE] = 1 + min(length, 6)


@compiled("void(int64[::1], int64, int64[::1], uint8[::1])", **_CACHED)
def code_bits(values, width, memory, data):
    """Code integers of ``width`` bits, all equally likely; ``values`` is filled when decoding."""
    for i in range(values.size):
        if is_beyond(memory, data):
            return
        value = values[i]
        values[i] = 0
        for k in range(width - 1, -1, -1):
            values[i] = 2 * values[i] + code_bit(value >> k & 1, 1 << 15, memory, data)
