"""The model and the arithmetic coder of `scc_tf.coding.mixing`, compiled; one body for both directions.

Everything is int64 arithmetic on one flat array, ``memory``, whose parts the constants below name, so that the same
bits come out on every machine. Numba notices a change of this file only, so nothing compiled may read a constant of
another one.

A bit is predicted thus. Inputs are log-odds in units of 1/256: a constant 1, ``direct`` shares known from counts, and
``counted`` adaptive probabilities, one slot of a block each, that fade in as they have seen more bits. Two sets of
weights, chosen by a context each, sum them; the mean of both sums is the prediction. Then each set moves its weights
down the gradient of its own code length, and each slot its probability towards the bit.

Source: Mahoney 2005, "Adaptive weighing of context models for lossless data compression" (PAQ); logistic mixing and
    the tables ``stretch`` and ``squash`` as in lpaq1.
"""

from scc_tf.coding.mixing.compiled import compiled

LIMIT = 2840  # log-odds are within 11.1 nats, beyond what 16 bits can say
UNARY = 20  # larger magnitudes end in Exp-Golomb bits
SQUASH = LIMIT  # where log-odds of 0 are
STRETCH = 2 * LIMIT + 1
CONFIDENCE = STRETCH + (1 << 16)
RATE = CONFIDENCE + 1024
REGISTERS = RATE + 1024
LOW, HIGH, CODE, NEXT, DECODING = range(REGISTERS, REGISTERS + 5)  # of the coder
KIND, EDGE, CHANNELS, SEEN, ENTRIES, TOTAL, PAST = range(REGISTERS + 5, REGISTERS + 12)  # of the kernel
FIRST = REGISTERS + 12  # of the channel, from here on to LAST
COUNT, POSITION, SIGNS, SIZES, EXPECTED, GAP, SIGN, SIGN_BEFORE, RECENT = range(FIRST, FIRST + 9)
LAST = FIRST + 9
FILLED, PLACE = range(LAST, LAST + 2)  # of the filter
OWN, OWN_SIGNS, OWN_SIZES, LINK, LIKELY = range(LAST + 2, LAST + 7)  # of the entry
NEAR = LAST + 7
LEFT, UP, UP_LEFT, UP_RIGHT, LEFT_2, UP_2, WIDE, SHARED, BEFORE, BEFORE_2, BEFORE_RIGHT, BEFORE_DOWN = range(
    NEAR, NEAR + 12
)
INPUTS = REGISTERS + 64
CONTEXTS = INPUTS + 32
WEIGHTS = CONTEXTS + 32
SETS, STRIDE = 128, 18  # of a set, the last is how often it was used
SLOTS = WEIGHTS + SETS * STRIDE
BLOCKS, BLOCK = 27, 1024
END = SLOTS + BLOCKS * BLOCK

LIVE, COUNTED, SIGNED, SIZED = range(4)  # what is known of a row
BEYOND = 256  # bytes, more than any writer has left out at the end: there a reader stops

_MASK = (1 << 40) - 1
_CACHED = {"cache": True, "error_model": "numpy"}
_INNER = {**_CACHED, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # half a second less each


@compiled("int64(int64, int64, int64[::1], uint8[::1])", **_CACHED)
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


@compiled("boolean(int64[::1], uint8[::1])", **_CACHED)
def is_beyond(memory, data):
    """Whether a reader is so far past the end that no writer can have written what it reads."""
    return memory[DECODING] and memory[NEXT] > data.size + BEYOND


@compiled("int64(int64, int64, int64, int64, int64, int64, int64[::1], uint8[::1])", **_INNER)
def decide(bit, direct, counted, block, one, two, memory, data):
    """Code a bit whose inputs and contexts are set, with the weight sets ``one`` and ``two``, and learn from it."""
    memory[INPUTS] = 256
    for j in range(counted):
        slot = memory[SLOTS + (block + j) * BLOCK + memory[CONTEXTS + j]]
        trust = memory[CONFIDENCE + (slot & 1023)]
        memory[INPUTS + direct + j] = memory[STRETCH + (slot >> 16)] * trust >> 8
    one = WEIGHTS + one * STRIDE
    two = WEIGHTS + two * STRIDE
    first = second = 0
    for j in range(direct + counted):
        first += memory[one + j] * memory[INPUTS + j]
        second += memory[two + j] * memory[INPUTS + j]
    first = min(max(first >> 16, -LIMIT), LIMIT)
    second = min(max(second >> 16, -LIMIT), LIMIT)
    chance = min(max(memory[SQUASH + (first + second >> 1)], 16), 65520)
    bit = code_bit(bit, chance, memory, data)
    first = (65535 * bit - memory[SQUASH + first]) * (2 + 600 // (memory[one + STRIDE - 1] + 20))
    second = (65535 * bit - memory[SQUASH + second]) * (2 + 600 // (memory[two + STRIDE - 1] + 20))
    memory[one + STRIDE - 1] += 1
    memory[two + STRIDE - 1] += 1
    for j in range(direct + counted):
        memory[one + j] += memory[INPUTS + j] * first + (1 << 17) >> 18
        memory[two + j] += memory[INPUTS + j] * second + (1 << 17) >> 18
    for j in range(counted):
        place = SLOTS + (block + j) * BLOCK + memory[CONTEXTS + j]
        count = memory[place] & 1023
        mine = memory[place] >> 10 if count else chance << 6  # a slot starts from what the others knew
        mine += ((bit << 22) - bit - mine) * memory[RATE + count] >> 16
        memory[place] = mine << 10 | min(count + 1, 1000)
    return bit


@compiled("int64(int64, int64)", **_INNER)
def _length(value, most):
    bits = 0
    while value > 0 and bits < most:
        bits += 1
        value >>= 1
    return bits


@compiled("int64(int64)", **_INNER)
def _grade(value):
    """Class of a number below 128, two per factor of 2."""
    bits = _length(value, 7)
    return 2 * bits + (value >> max(bits - 2, 0) & 1)


@compiled("int64(int64)", **_INNER)
def _sign(value):
    return (value > 0) - (value < 0)


@compiled("int64(int64, int64[::1])", **_INNER)
def _stretched(share, memory):
    return memory[STRETCH + min(max(share, 8), 62000)]


@compiled("void(int64[::1], int64[:,:,:,::1], int64[::1], int64[::1], uint8[::1])", **_CACHED)
def code_liveness(channels, rows, links, memory, data):
    """Code which channels and which rows are not all zeros; the arguments are those of `code_weights`."""
    recent, edge = 0, memory[EDGE]
    for c in range(channels.size):
        memory[CONTEXTS] = memory[KIND]
        memory[CONTEXTS + 1] = recent
        channels[c] = decide(channels[c], 1, 2, 0, 0, 1, memory, data)
        recent = (recent * 2 + channels[c]) & 3
    recent = 0
    for i in range(links.size):
        live, link, some = rows[i, LIVE], min(links[i], 2), 0
        for y in range(edge, live.shape[0] - edge):
            for x in range(edge, live.shape[1] - edge):
                near = corners = far = 0
                if edge:
                    near = live[y, x - 1] + 2 * live[y - 1, x]
                    corners = live[y - 1, x - 1] + 2 * live[y - 1, x + 1]
                    far = live[y - 2, x] + 2 * live[y, x - 2]
                memory[CONTEXTS] = link * 4 + recent
                memory[CONTEXTS + 1] = near + 4 * corners + 16 * (y == edge and x == edge)
                memory[CONTEXTS + 2] = 4 * link + 2 * some + (y + x > 2 * edge)
                memory[CONTEXTS + 3] = 4 * near + far
                live[y, x] = decide(live[y, x], 1, 4, 2, 2 + memory[KIND], 8 + link, memory, data)
                recent = (recent * 2 + live[y, x]) & 3
                some |= live[y, x]


@compiled("void(int64[:,::1], int64[:,::1], int64[:,::1], int64, int64, int64[::1])", **_INNER)
def _look(now, last, counts, y, x, memory):
    """Note the neighbours of an entry in its filter, and around it in the one before; ``WIDE`` counts twelve."""
    memory[LEFT] = now[y, x - 1]
    memory[UP] = now[y - 1, x]
    memory[UP_LEFT] = now[y - 1, x - 1]
    memory[UP_RIGHT] = now[y - 1, x + 1]
    memory[LEFT_2] = now[y, x - 2]
    memory[UP_2] = now[y - 2, x]
    memory[BEFORE_RIGHT] = last[y, x + 1]
    memory[BEFORE_DOWN] = last[y + 1, x]
    wide = (now[y, x - 1] != 0) + (now[y, x - 2] != 0)
    for k in range(x - 2, x + 3):
        wide += (now[y - 1, k] != 0) + (now[y - 2, k] != 0)
    memory[WIDE] = wide
    shared = counts[y, x - 1] + 3 * counts[y, x] + counts[y, x + 1] + counts[y - 1, x] + counts[y + 1, x]
    for k in range(x - 1, x + 2):
        shared += counts[y - 1, k] + counts[y, k] + counts[y + 1, k]
    memory[SHARED] = shared  # of 16 times the channels


@compiled("int64(int64, int64[::1], uint8[::1])", **_INNER)
def _code_flag(flag, memory, data):
    """Whether an entry is not zero."""
    own, seen, count, kind = memory[OWN], memory[SEEN], memory[COUNT], memory[KIND]
    left, up, up_left, up_right = memory[LEFT], memory[UP], memory[UP_LEFT], memory[UP_RIGHT]
    density = min(max(((memory[ENTRIES] << 16) + 65536) // (memory[PAST] + 16), 32), 65000)
    row = ((own << 16) + density * 2) // (seen + 2)
    around = min(max(((memory[SHARED] << 16) + density * 128) // (16 * seen + 128), 8), 65000)
    surplus = ((count + 4) << 24) // (memory[EXPECTED] + (4 << 16))  # of the channel over its rows, in 1/256
    memory[EXPECTED] += around
    guess = _stretched(around * surplus >> 8, memory)
    memory[INPUTS + 1] = _stretched(row, memory)
    memory[INPUTS + 2] = _stretched(around, memory)
    memory[INPUTS + 3] = guess
    memory[INPUTS + 4] = _stretched(row * surplus >> 8, memory)
    likely = min(max(guess + 2048 >> 7, 0), 23)
    memory[LIKELY] = likely
    near = 2 * ((left != 0) + (up != 0)) + (up_left != 0) + (up_right != 0)
    pattern = (left != 0) + 2 * (up != 0)
    excess = _length(surplus >> 6, 5) + (surplus >= 192) + (surplus >= 384)
    memory[CONTEXTS] = likely * 8 + near
    memory[CONTEXTS + 1] = (
        pattern + 4 * (up_left != 0) + 8 * (up_right != 0) + 16 * (memory[LEFT_2] != 0) + 32 * (memory[UP_2] != 0)
    )
    sizes = min(abs(left), 3) * 4 + min(abs(up), 3)
    memory[CONTEXTS + 2] = (sizes * 3 + min(abs(up_right), 2)) * 3 + min(abs(up_left), 2)
    before = (memory[BEFORE] != 0) + 2 * (memory[BEFORE_2] != 0)
    memory[CONTEXTS + 3] = 16 * pattern + before + 4 * (memory[BEFORE_RIGHT] != 0) + 8 * (memory[BEFORE_DOWN] != 0)
    memory[CONTEXTS + 4] = min(max(memory[INPUTS + 1] + 2048 >> 8, 0), 11) * 8 + excess
    memory[CONTEXTS + 5] = (memory[LINK] * 4 + min(own, 3)) * 16 + _length(memory[CHANNELS] - seen, 11)
    memory[CONTEXTS + 6] = min(count, 7) * 16 + _length(memory[POSITION], 15)
    if kind == 2:
        memory[CONTEXTS + 7] = _length(memory[GAP], 7) * 4 + memory[RECENT]
    else:
        memory[CONTEXTS + 7] = min(memory[FILLED], 7) * 8 + _length(memory[PLACE], 7)
    typical = _length((memory[SIZES] + count) * 8 // (memory[POSITION] + 1), 7)
    memory[CONTEXTS + 8] = typical * 8 + _length(2 * (abs(left) + abs(up)) + abs(up_left) + abs(up_right), 7)
    memory[CONTEXTS + 9] = memory[WIDE] * 24 + likely
    return decide(flag, 5, 10, 6, 16 + 8 * kind + near, 40 + 8 * kind + excess, memory, data)


@compiled("int64(int64, int64[::1], uint8[::1])", **_INNER)
def _code_sign(positive, memory, data):
    """Whether an entry that is not zero is positive."""
    own, count, signs = memory[OWN], memory[COUNT], memory[SIGNS]
    left, up, up_left, up_right = memory[LEFT], memory[UP], memory[UP_LEFT], memory[UP_RIGHT]
    memory[INPUTS + 1] = _stretched(((own + memory[OWN_SIGNS] << 15) + 65536) // (own + 2), memory)
    memory[INPUTS + 2] = _stretched(((count + signs << 15) + 65536) // (count + 2), memory)
    memory[CONTEXTS] = ((_sign(left) * 3 + _sign(up)) * 3 + _sign(up_left)) * 3 + _sign(up_right) + 40
    before = _sign(memory[BEFORE]) * 3 + _sign(memory[BEFORE_2]) + 4
    memory[CONTEXTS + 1] = before * 9 + memory[SIGN] * 3 + memory[SIGN_BEFORE]
    memory[CONTEXTS + 2] = (min(max(2 * (left + up) + up_left + up_right, -7), 7) + 7) * 3 + memory[SIGN]
    memory[CONTEXTS + 3] = (min(max(memory[OWN_SIGNS], -3), 3) + 3) * 7 + min(max(signs, -3), 3) + 3
    near = 2 * ((left != 0) + (up != 0)) + (up_left != 0) + (up_right != 0)
    return decide(positive, 3, 4, 16, 80 + memory[KIND], 84 + min(near, 3), memory, data)


@compiled("int64(int64, int64, int64[::1], uint8[::1])", **_INNER)
def _code_size(size, positive, memory, data):
    """The magnitude of an entry, at least 1: unary bits, then its excess in Exp-Golomb bits."""
    own, count, sizes, own_sizes = memory[OWN], memory[COUNT], memory[SIZES], memory[OWN_SIZES]
    left, up, up_left, up_right = memory[LEFT], memory[UP], memory[UP_LEFT], memory[UP_RIGHT]
    mean = _grade((sizes * 8 + 8) // (count + 2) if count else 8 * memory[TOTAL] // (memory[ENTRIES] + 1))
    own_mean = _grade(own_sizes * 8 // max(own, 1))
    near = 2 * ((left != 0) + (up != 0)) + (up_left != 0) + (up_right != 0)
    around = _grade((2 * (abs(left) + abs(up)) + abs(up_left) + abs(up_right)) * 4 // max(near, 1))
    pull = 2 * (left + up) + up_left + up_right
    agree = min(max(pull if positive else -pull, -6), 7) + 6
    memory[INPUTS + 1] = _stretched((sizes + 1 << 16) // (sizes + count + 2), memory)
    memory[INPUTS + 2] = _stretched((own_sizes + 1 << 16) // (own_sizes + own + 2), memory)
    found = more = 1
    while more and found < UNARY:
        step = found - 1
        memory[CONTEXTS] = step * 16 + around
        memory[CONTEXTS + 1] = step * 16 + mean
        memory[CONTEXTS + 2] = step * 16 + own_mean
        memory[CONTEXTS + 3] = step * 16 + agree
        memory[CONTEXTS + 4] = step * 16 + min(abs(memory[BEFORE]), 3) * 4 + min(abs(left), 3)
        memory[CONTEXTS + 5] = step * 24 + memory[LIKELY] // 2 * 2 + positive
        more = decide(size > found, 3, 6, 20, 88 + min(step, 7), 100 + min(mean >> 1, 7), memory, data)
        found += more
    if not more:
        return found
    excess, bits = size - UNARY + 1, 0
    while more and bits < 32:
        memory[CONTEXTS] = bits
        more = decide(excess >> bits + 1 > 0, 1, 1, 26, 98, 99, memory, data)
        bits += more
    found = 1
    for k in range(bits):
        found = found * 2 + code_bit(excess >> bits - 1 - k & 1, 1 << 15, memory, data)
    return found + UNARY - 1


@compiled("void(int64, int64, int64, int64[:,:,::1], int64[::1])", **_INNER)
def _note(value, y, x, rows, memory):
    """Count an entry that is not zero."""
    positive, size = value > 0, min(abs(value), 64) - 1
    rows[SIGNED, y, x] += 2 * positive - 1
    rows[SIZED, y, x] += size
    memory[COUNT] += 1
    memory[FILLED] += 1
    memory[ENTRIES] += 1
    memory[SIGNS] += 2 * positive - 1
    memory[SIZES] += size
    memory[TOTAL] += size
    memory[SIGN_BEFORE] = memory[SIGN]
    memory[SIGN] = 1 + positive
    memory[RECENT] = min(size + 1, 3)
    memory[GAP] = 0


@compiled("void(int64[:,::1], int64[:,:,::1], int64[:,:,::1], int64[::1], uint8[::1])", **_INNER)
def _code_filter(entries, rows, window, memory, data):
    """Code the entries of live rows ``(h, w)``, one channel and one input of a kernel."""
    edge, seen = memory[EDGE], memory[SEEN]
    now, last, before = window[seen % 3], window[(seen + 2) % 3], window[(seen + 1) % 3]
    memory[FILLED] = memory[PLACE] = 0
    for y in range(edge, edge + entries.shape[0]):
        for x in range(edge, edge + entries.shape[1]):
            now[y, x] = 0
            if not rows[LIVE, y, x]:
                continue
            memory[OWN] = rows[COUNTED, y, x]
            memory[OWN_SIGNS] = rows[SIGNED, y, x]
            memory[OWN_SIZES] = rows[SIZED, y, x]
            memory[SHARED] = 16 * memory[OWN]
            memory[BEFORE] = last[y, x]
            memory[BEFORE_2] = before[y, x]
            if edge:
                _look(now, last, rows[COUNTED], y, x, memory)
            if is_beyond(memory, data):
                return
            value = entries[y - edge, x - edge]
            some = _code_flag(value != 0, memory, data)
            memory[POSITION] += 1
            memory[PLACE] += 1
            memory[PAST] += 1
            memory[GAP] += 1
            if memory[GAP] > 3:
                memory[RECENT] = 0
            if some:
                positive = _code_sign(value > 0, memory, data)
                size = _code_size(abs(value), positive, memory, data)
                now[y, x] = entries[y - edge, x - edge] = size if positive else -size
                _note(now[y, x], y, x, rows, memory)


@compiled(
    "void(int64[:,:,:,::1], int64[::1], int64[:,:,:,::1], int64[:,:,:,::1], int64[::1], int64[::1], uint8[::1])",
    **_CACHED,
)
def code_weights(kernel, channels, rows, window, links, memory, data):
    """Code the entries of live rows and channels, channel by channel, input by input, position by position.

    Args:
        kernel: ``(C, I, h, w)``; filled when decoding.
        channels: ``(C,)``, 1 where live.
        rows: ``(I, 4, h + 2 edge, w + 2 edge)``: whether each is live, and zeros for counts, signs and magnitudes.
        window: zeros ``(I, 3, h + 2 edge, w + 2 edge)``, for this channel and the two before.
        links: ``(I,)``, from 0 to 6, what the layer before tells of each input.
        memory: the state.
        data: uint8, the bytes.
    """
    edge = memory[EDGE]
    for c in range(channels.size):
        if not channels[c]:
            continue
        for k in range(FIRST, LAST):
            memory[k] = 0
        for i in range(links.size):
            memory[LINK] = links[i]
            _code_filter(kernel[c, i], rows[i], window[i], memory, data)
        now = memory[SEEN] % 3
        for i in range(links.size):  # only now: rows count the channels before, all of them alike
            for y in range(edge, rows.shape[2] - edge):
                for x in range(edge, rows.shape[3] - edge):
                    rows[i, COUNTED, y, x] += window[i, now, y, x] != 0
        memory[SEEN] += 1
