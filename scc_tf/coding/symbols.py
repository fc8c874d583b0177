"""The contexts in which texts and numbers are coded; see `scc_tf.coding.mixer`, and its note on Numba.

A text is coded byte by byte, bit by bit. Each bit has a prediction from every context: the last bytes, the last bytes
with every number taken for one sign (so that a known text with other numbers is still known), and what followed when
the same was last seen. A number is coded as whether it is 0, its sign, its length in bits, and its bits, with what the
numbers before it were.
"""

import numba

from scc_tf.coding.compiled import compiled, wrapped
from scc_tf.coding.mixer import CACHED, CONTEXTS, INNER, STATE, code_bit, decide, is_beyond, length_of

HASHES = STATE  # of the contexts of a byte
PLAIN_END, DIGITS, NUMBER, MATCH, _, LENGTH, _, SKELETON = range(STATE + 16, STATE + 24)  # of a text; two matches
KIND, BEFORE = range(STATE, STATE + 2)  # of numbers
TEXT, NUMBERS = 9, 4  # contexts
TEXT_SETS, NUMBER_SETS = 128, 176  # the first of each
SEEN_BITS, SLOT_BITS = 14, 20
TEXT_SEEN = 2 << SEEN_BITS  # entries of the memory
TEXT_SIZE = TEXT_SEEN + (1 << SLOT_BITS)
NODES, NUMBER_BLOCK = 256, 1 << 14  # decisions about a number; slots of one context: of 8 kinds, with 8 classes


@compiled("int64(int64, int64, int64)", **INNER)
def _hash(value, more, bits):
    """A number below ``2**bits``."""
    mixed = (value * 0x2545F491 + more + 1) * 0x9E3779B97F4A7C1
    return (mixed ^ mixed >> 29) * 0x2545F4914F6CDD1 >> 20 & (1 << bits) - 1


if numba.config.DISABLE_JIT:

    def _hash(value, more, bits):
        """The same where integers do not wrap around by themselves."""
        mixed = wrapped((value * 0x2545F491 + more + 1) * 0x9E3779B97F4A7C1)
        return wrapped((mixed ^ mixed >> 29) * 0x2545F4914F6CDD1) >> 20 & (1 << bits) - 1


@compiled("int64(uint8[::1], int64, int64, int64)", **INNER)
def _last(text, end, order, more):
    """A hash of the last ``order`` bytes and of another number."""
    mixed = order
    for k in range(max(end - order, 0), end):
        mixed = _hash(mixed, text[k], 40)
    return _hash(mixed, more, 40)


@compiled("void(uint8[::1], int64, uint8[::1], int64, int64[::1])", **INNER)
def _prepare(text, place, plain, seen, memory):
    """Find what matches, and hash the contexts of the byte at ``place``."""
    end, number, digits = memory[PLAIN_END], memory[NUMBER], memory[DIGITS]
    for j in range(2):
        key = seen + (j << SEEN_BITS) + _last(plain, end, 12 + 20 * j, digits) % (1 << SEEN_BITS)
        right = place and memory[MATCH + j] and text[memory[MATCH + j]] == text[place - 1]
        memory[LENGTH + j] = memory[LENGTH + j] + 1 if right else 0
        memory[MATCH + j] = memory[MATCH + j] + 1 if right and j else memory[key]
        memory[key] = place
    for j in range(4):
        memory[HASHES + j] = _last(text, place, j + 1 + 2 * (j == 3), 0)
    memory[HASHES + 4] = _last(plain, end, 8, number)
    memory[HASHES + 5] = _last(plain, end, 32, number)
    memory[HASHES + 6] = _hash(memory[SKELETON], number, 40)
    memory[HASHES + 9] = _last(plain, end, 8, 0)


@compiled("void(int64, uint8[::1], int64[::1])", **INNER)
def _append(byte, plain, memory):
    """Note a byte; in ``plain`` every number is one 0."""
    digit = 48 <= byte < 58
    if not digit or not memory[DIGITS]:
        plain[memory[PLAIN_END]] = 48 if digit else byte
        memory[SKELETON] = _hash(memory[SKELETON], plain[memory[PLAIN_END]], 40) if byte else 0
        memory[PLAIN_END] += 1
    memory[DIGITS] = memory[DIGITS] + 1 if digit else 0
    memory[NUMBER] = _hash(memory[NUMBER], byte, 40) if digit else 0


@compiled("int64(int64, uint8[::1], int64, int64[::1])", **INNER)
def _expected(j, text, known, memory):
    """The byte that a match promises, and 0 if the bits that are known say otherwise."""
    byte = 256 + text[memory[MATCH + j]]
    return byte if memory[MATCH + j] and byte >> 9 - length_of(known, 9) == known else 0


@compiled("int64(uint8[::1], int64, int64, uint8[::1], int64, int64[::1], uint8[::1])", **CACHED)
def code_text(text, start, most, plain, seen, memory, data):
    """Code ASCII up to and including a 0, another byte, or up to ``most``; returns where it ends.

    Args:
        text: uint8, all that was coded before, from ``start`` on the bytes; filled when reading.
        start: int.
        most: int.
        plain: uint8, as long; what `_append` made of it.
        seen: where ``memory`` notes places, and behind them the slots.
        memory: the state.
        data: uint8, the coded bytes.
    """
    slots = seen + TEXT_SEEN
    for place in range(start, most):
        _prepare(text, place, plain, seen, memory)
        known, byte = 1, text[place]
        for k in range(7, -1, -1):
            one, two = _expected(0, text, known, memory), _expected(1, text, known, memory)
            grades = 0
            if one:
                grades = 1 + (memory[LENGTH] > 7) + (memory[LENGTH] > 31)
            if two:
                grades += 4 + 4 * (memory[LENGTH + 1] > 7) + 4 * (memory[LENGTH + 1] > 31)
            memory[HASHES + 7] = _hash(two, min(memory[LENGTH + 1], 15), 40)
            memory[HASHES + 8] = _hash(one << 9 | two, memory[HASHES + 9], 40)
            for j in range(TEXT):
                hashed = _hash(_hash(memory[HASHES + j], j, 40), known, 50)
                slot, owner = slots + hashed % (1 << SLOT_BITS), hashed >> SLOT_BITS
                if memory[slot] >> 32 != owner:  # it belonged to another context
                    memory[slot] = owner << 32 | 1 << 31
                memory[CONTEXTS + j] = slot
            inside = min(memory[DIGITS], 1)
            first, second = TEXT_SETS + 2 * grades + inside, TEXT_SETS + 32 + 2 * k + inside
            bit = decide(byte >> k & 1, 1, TEXT, 0, 0, first, second, second, memory, data)
            known = 2 * known + bit
        text[place] = known & 255
        _append(text[place], plain, memory)
        is_text = 31 < text[place] < 127  # what is damaged is soon none, and need not be decoded to its end
        if not is_text or is_beyond(memory, data):
            return place + 1
    return most


@compiled("int64(int64, int64, int64, int64, int64[::1], uint8[::1])", **INNER)
def _code_node(bit, node, sign, slots, memory, data):
    """Code one decision about a number."""
    at = memory[KIND] * NODES + node
    memory[CONTEXTS] = 8 * at
    memory[CONTEXTS + 1] = 8 * at + memory[BEFORE]
    memory[CONTEXTS + 2] = 8 * at + sign
    memory[CONTEXTS + 3] = node
    one, two = NUMBER_SETS + memory[KIND], NUMBER_SETS + 8 + min(node, 63)
    return decide(bit, 1, NUMBERS, slots, NUMBER_BLOCK, one, two, two, memory, data)


@compiled("void(int64[::1], int64, int64, int64[::1], uint8[::1])", **CACHED)
def code_numbers(values, kind, slots, memory, data):
    """Code integers within 2^62 of 0.

    Args:
        values: int64; filled when reading.
        kind: what they are, from 0 to 7: numbers of one kind are alike, and those of one call more so.
        slots: where those of the first context are.
        memory: the state.
        data: uint8, the coded bytes.
    """
    memory[KIND], memory[BEFORE] = kind, 0
    for k in range(NODES):
        memory[slots + 3 * NUMBER_BLOCK + k] = 1 << 31
    for i in range(values.size):
        if is_beyond(memory, data):
            return
        value = values[i]
        if not _code_node(value != 0, 0, 0, slots, memory, data):
            values[i] = memory[BEFORE] = 0
            continue
        sign = _code_node(value > 0, 1, 0, slots, memory, data)
        size, length = abs(value), 1
        while length < 62 and _code_node(size >> length > 0, 1 + length, sign, slots, memory, data):
            length += 1
        found = 1
        for k in range(length - 2, -1, -1):
            bit = size >> k & 1
            if found < 8:
                bit = _code_node(bit, 64 + 8 * min(length, 15) + found, sign, slots, memory, data)
            else:
                bit = code_bit(bit, 1 << 15, memory, data)
            found = 2 * found + bit
        values[i] = found if sign else -found
        memory[BEFORE] = 1 + min(length, 6)
