"""The contexts in which the entries of kernels are coded; see `scc_tf.coding.mixer`, and its note on Numba.

A kernel is coded as binary decisions: which channels and rows (positions and inputs) are not all zeros, which entries
are not zero, their signs, their magnitudes. Each decision has a dozen predictions: from neighbours in the filter, from
the channels before, from the density of row and column and their product, and from two Gaussians. Their mean follows
the neighbours, by least mean squares; their deviation is that of the channel, in one of them times that of the row.
"""

from scc_tf.coding.compiled import compiled
from scc_tf.coding.gaussians import (
    FLOOR,
    INVERSE,
    above,
    bounded,
    end_channel,
    expect,
    follow,
    predict,
    start_channel,
    start_kernel,
)
from scc_tf.coding.mixer import (
    CACHED,
    CONTEXTS,
    INNER,
    INPUTS,
    SLOTS,
    STATE,
    code_bit,
    decide,
    is_beyond,
    length_of,
    log_odds,
)

UNARY = 20  # steps of a magnitude; larger ones end in Exp-Golomb bits
BLOCK = 1024  # slots of a context
CHANNEL, ROW, FLAG, SIGN, SIZE, EXCESS, LOWEST, LARGEST = (
    SLOTS + block * BLOCK for block in (0, 2, 6, 16, 21, 29, 30, 32)
)
END = SLOTS + 35 * BLOCK
KIND, EDGE, CHANNELS, SEEN, ENTRIES, TOTAL, PAST = range(STATE, STATE + 7)  # of the kernel
CLIPS = STATE + 7  # hits that say that a channel is clipped
FIRST = STATE + 8  # of the channel, from here on to LAST
COUNT, POSITION, SIGNS, SIZES, EXPECTED, GAP, BEFORE_SIGN, BEFORE_SIGN_2, RECENT = range(FIRST, FIRST + 9)
TOP, HITS = FIRST + 9, FIRST + 11  # largest magnitude of either sign, and how often it was there
LAST = FIRST + 13
FILLED, PLACE = range(LAST, LAST + 2)  # of the filter
OWN, OWN_SIGNS, OWN_SIZES, LINK, LIKELY = range(LAST + 2, LAST + 7)  # of the entry
NEAR = LAST + 7
LEFT, UP, UP_LEFT, UP_RIGHT, LEFT_2, UP_2, WIDE, SHARED, BEFORE, BEFORE_2, BEFORE_RIGHT, BEFORE_DOWN = range(
    NEAR, NEAR + 12
)
LIVE, COUNTED, SIGNED, SIZED, POWER = range(5)  # what is known of a row


@compiled("int64(int64)", **INNER)
def _grade(value):
    """Class of a number below 128, two per factor of 2."""
    bits = length_of(value, 7)
    return 2 * bits + (value >> max(bits - 2, 0) & 1)


@compiled("int64(int64)", **INNER)
def _sign(value):
    return (value > 0) - (value < 0)


@compiled("void(int64[::1], int64[::1], uint8[::1])", **CACHED)
def code_channels(live, memory, data):
    """Code which channels ``(C,)`` are not all zeros."""
    recent = 0
    for c in range(live.size):
        memory[CONTEXTS] = 0
        memory[CONTEXTS + 1] = recent
        live[c] = decide(live[c], 1, 2, CHANNEL, BLOCK, 0, 1, 1, memory, data)
        recent = (recent * 2 + live[c]) & 3


@compiled("void(int64[:,:,:,::1], int64[::1], int64[::1], uint8[::1])", **INNER)
def _code_rows(rows, links, memory, data):
    """Code which rows are not all zeros."""
    recent, edge = 0, memory[EDGE]
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
                live[y, x] = decide(live[y, x], 1, 4, ROW, BLOCK, 2 + memory[KIND], 8 + link, 8 + link, memory, data)
                recent = (recent * 2 + live[y, x]) & 3
                some |= live[y, x]


@compiled("void(int64[:,::1], int64[:,::1], int64[:,::1], int64, int64, int64[::1])", **INNER)
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


# Entries -------------------------------------------------------------------------------------------------------------


@compiled("int64(int64, int64[::1], uint8[::1])", **INNER)
def _code_flag(flag, memory, data):
    """Whether an entry is not zero."""
    own, seen, count, kind = memory[OWN], memory[SEEN], memory[COUNT], memory[KIND]
    left, up, up_left, up_right = memory[LEFT], memory[UP], memory[UP_LEFT], memory[UP_RIGHT]
    density = min(max(((memory[ENTRIES] << 16) + 65536) // (memory[PAST] + 16), 32), 65000)
    row = ((own << 16) + density * 2) // (seen + 2)
    around = min(max(((memory[SHARED] << 16) + density * 128) // (16 * seen + 128), 8), 65000)
    surplus = ((count + 4) << 24) // (memory[EXPECTED] + (4 << 16))  # of the channel over its rows, in 1/256
    memory[EXPECTED] += around
    guess = log_odds(around * surplus >> 8, memory)
    memory[INPUTS + 1] = log_odds(row, memory)
    memory[INPUTS + 2] = log_odds(around, memory)
    memory[INPUTS + 3] = guess
    memory[INPUTS + 4] = log_odds(row * surplus >> 8, memory)
    for k in range(2):
        memory[INPUTS + 5 + k] = log_odds(above(1, 1, k, memory) + above(1, -1, k, memory) >> 24, memory)
    likely = min(max(guess + 2048 >> 7, 0), 23)
    memory[LIKELY] = likely
    near = 2 * ((left != 0) + (up != 0)) + (up_left != 0) + (up_right != 0)
    pattern = (left != 0) + 2 * (up != 0)
    excess = length_of(surplus >> 6, 5) + (surplus >= 192) + (surplus >= 384)
    memory[CONTEXTS] = likely * 8 + near
    memory[CONTEXTS + 1] = (
        pattern + 4 * (up_left != 0) + 8 * (up_right != 0) + 16 * (memory[LEFT_2] != 0) + 32 * (memory[UP_2] != 0)
    )
    sizes = min(abs(left), 3) * 4 + min(abs(up), 3)
    memory[CONTEXTS + 2] = (sizes * 3 + min(abs(up_right), 2)) * 3 + min(abs(up_left), 2)
    before = (memory[BEFORE] != 0) + 2 * (memory[BEFORE_2] != 0)
    memory[CONTEXTS + 3] = 16 * pattern + before + 4 * (memory[BEFORE_RIGHT] != 0) + 8 * (memory[BEFORE_DOWN] != 0)
    memory[CONTEXTS + 4] = min(max(memory[INPUTS + 1] + 2048 >> 8, 0), 11) * 8 + excess
    memory[CONTEXTS + 5] = (memory[LINK] * 4 + min(own, 3)) * 16 + length_of(memory[CHANNELS] - seen, 11)
    memory[CONTEXTS + 6] = min(count, 7) * 16 + length_of(memory[POSITION], 15)
    if kind == 2:
        memory[CONTEXTS + 7] = length_of(memory[GAP], 7) * 4 + memory[RECENT]
    else:
        memory[CONTEXTS + 7] = min(memory[FILLED], 7) * 8 + length_of(memory[PLACE], 7)
    typical = length_of((memory[SIZES] + count) * 8 // (memory[POSITION] + 1), 7)
    memory[CONTEXTS + 8] = typical * 8 + length_of(2 * (abs(left) + abs(up)) + abs(up_left) + abs(up_right), 7)
    memory[CONTEXTS + 9] = memory[WIDE] * 24 + likely
    return decide(
        flag,
        7,
        10,
        FLAG,
        BLOCK,
        16 + 8 * kind + near,
        40 + 8 * kind + excess,
        256 + (memory[INPUTS + 6] + 2848 >> 8),
        memory,
        data,
    )


@compiled("int64(int64, int64[::1], uint8[::1])", **INNER)
def _code_sign(positive, memory, data):
    """Whether an entry that is not zero is positive."""
    own, count, signs = memory[OWN], memory[COUNT], memory[SIGNS]
    left, up, up_left, up_right = memory[LEFT], memory[UP], memory[UP_LEFT], memory[UP_RIGHT]
    memory[INPUTS + 1] = log_odds(((own + memory[OWN_SIGNS] << 15) + 65536) // (own + 2), memory)
    memory[INPUTS + 2] = log_odds(((count + signs << 15) + 65536) // (count + 2), memory)
    for k in range(2):
        up_share, low_share = above(1, 1, k, memory) + FLOOR, above(1, -1, k, memory) + FLOOR
        memory[INPUTS + 3 + k] = log_odds((up_share << 16) // (up_share + low_share), memory)
    memory[CONTEXTS] = ((_sign(left) * 3 + _sign(up)) * 3 + _sign(up_left)) * 3 + _sign(up_right) + 40
    before = _sign(memory[BEFORE]) * 3 + _sign(memory[BEFORE_2]) + 4
    memory[CONTEXTS + 1] = before * 9 + memory[BEFORE_SIGN] * 3 + memory[BEFORE_SIGN_2]
    pull = 2 * (left + up) + up_left + up_right
    memory[CONTEXTS + 2] = (min(max(pull, -7), 7) + 7) * 3 + memory[BEFORE_SIGN]
    memory[CONTEXTS + 3] = (min(max(memory[OWN_SIGNS], -3), 3) + 3) * 7 + min(max(signs, -3), 3) + 3
    memory[CONTEXTS + 4] = memory[INPUTS + 4] + 2848 >> 7
    near = 2 * ((left != 0) + (up != 0)) + (up_left != 0) + (up_right != 0)
    return decide(
        positive, 5, 5, SIGN, BLOCK, 80 + memory[KIND], 84 + min(near, 3), 280 + _sign(pull) + 1, memory, data
    )


@compiled("int64(int64, int64[::1], uint8[::1])", **INNER)
def _code_excess(excess, memory, data):
    """A number from 0 on, in Exp-Golomb bits."""
    bits, more = 0, 1
    while more and bits < 32:
        memory[CONTEXTS] = bits
        more = decide(excess + 1 >> bits + 1 > 0, 1, 1, EXCESS, BLOCK, 98, 99, 99, memory, data)
        bits += more
    found = 1
    for k in range(bits):
        found = found * 2 + code_bit(excess + 1 >> bits - 1 - k & 1, 1 << 15, memory, data)
    return found - 1


@compiled("int64(int64, int64, int64[::1], uint8[::1])", **INNER)
def _code_size(size, positive, memory, data):
    """The magnitude of an entry, at least 1: whether it is the largest so far; steps; what steps leave open."""
    own, count, sizes, own_sizes = memory[OWN], memory[COUNT], memory[SIZES], memory[OWN_SIZES]
    left, up, up_left, up_right = memory[LEFT], memory[UP], memory[UP_LEFT], memory[UP_RIGHT]
    mean = _grade((sizes * 8 + 8) // (count + 2) if count else 8 * memory[TOTAL] // (memory[ENTRIES] + 1))
    own_mean = _grade(own_sizes * 8 // max(own, 1))
    near = 2 * ((left != 0) + (up != 0)) + (up_left != 0) + (up_right != 0)
    around = _grade((2 * (abs(left) + abs(up)) + abs(up_left) + abs(up_right)) * 4 // max(near, 1))
    pull = 2 * (left + up) + up_left + up_right
    agree = min(max(pull if positive else -pull, -6), 7) + 6
    side, clipped, k = 2 * positive - 1, 0, 0
    while not clipped and k < 2:  # by what is known of this sign, and of the other: codes go from -n to n - 1
        sign = 1 - positive if k else positive
        top, hits = memory[TOP + sign] - k * side, memory[HITS + sign]
        alike = count + (2 * sign - 1) * memory[SIGNS] >> 1
        clipped = top > 3 and top >= memory[TOP + positive] and hits >= memory[CLIPS] and 5 * hits > 2 * alike
        k += 1
    if not clipped:
        top, hits = memory[TOP + positive], memory[HITS + positive]
    if clipped:
        predict(1, side, 1, top, 0, memory)
        memory[CONTEXTS] = min(hits * 8 // alike, 7) * 16 + length_of(hits, 15)
        memory[CONTEXTS + 1] = min(hits * 16 // alike, 15) * 8 + near
        memory[CONTEXTS + 2] = agree
        if decide(size == top, 3, 3, LARGEST, BLOCK, 110, 111, 111, memory, data):
            return top
    memory[INPUTS + 1] = log_odds((sizes + 1 << 16) // (sizes + count + 2), memory)
    memory[INPUTS + 2] = log_odds((own_sizes + 1 << 16) // (own_sizes + own + 2), memory)
    width = length_of((1 << 24) // memory[INVERSE + 1] >> 10, 24)  # a step is about a quarter of the deviation, or 1
    found, step, more = 1, 0, 1
    while more and step < UNARY:
        following = found + (1 << width)
        high = top if clipped and found < top else 0
        predict(3, side, found, min(following, high) if high else following, high, memory)
        memory[CONTEXTS] = step * 16 + around
        memory[CONTEXTS + 1] = step * 16 + mean
        memory[CONTEXTS + 2] = step * 16 + own_mean
        memory[CONTEXTS + 3] = step * 16 + agree
        memory[CONTEXTS + 4] = step * 16 + min(abs(memory[BEFORE]), 3) * 4 + min(abs(left), 3)
        memory[CONTEXTS + 5] = step * 24 + memory[LIKELY] // 2 * 2 + positive
        memory[CONTEXTS + 6] = ((min(found, 15) * 3 + 1 + _sign(found - top)) * 2 + clipped) * 8 + length_of(hits, 7)
        memory[CONTEXTS + 7] = memory[INPUTS + 4] + 2848 >> 7
        two = 112 + length_of(hits, 5) if found == top else 100 + min(mean >> 1, 7)
        more = decide(size >= following, 5, 8, SIZE, BLOCK, 88 + min(step, 7), two, 284 + around, memory, data)
        step += more
        found = following if more else found
    if more:
        found += _code_excess(size - found >> width, memory, data) << width
    node = 1
    for k in range(width - 1, -1, -1):
        predict(1, side, found, found + (1 << k), found + (2 << k), memory)
        memory[CONTEXTS] = min(node, 15) * 16 + min(width - k, 15)
        memory[CONTEXTS + 1] = memory[INPUTS + 2] + 2848 >> 7
        bit = decide(size >= found + (1 << k), 3, 2, LOWEST, BLOCK, 108, 109, 109, memory, data)
        found += bit << k
        node = 2 * node + bit
    return found


@compiled("void(int64, int64, int64, int64[:,:,::1], int64[::1])", **INNER)
def _note(value, y, x, rows, memory):
    """Count an entry that is not zero."""
    positive, magnitude = value > 0, abs(value)
    size = min(magnitude, 64) - 1
    rows[SIGNED, y, x] += 2 * positive - 1
    rows[SIZED, y, x] += size
    memory[COUNT] += 1
    memory[FILLED] += 1
    memory[ENTRIES] += 1
    memory[SIGNS] += 2 * positive - 1
    memory[SIZES] += size
    memory[TOTAL] += size
    memory[BEFORE_SIGN_2] = memory[BEFORE_SIGN]
    memory[BEFORE_SIGN] = 1 + positive
    memory[RECENT] = min(size + 1, 3)
    memory[GAP] = 0
    if magnitude > memory[TOP + positive]:
        memory[TOP + positive], memory[HITS + positive] = magnitude, 0
    memory[HITS + positive] += magnitude == memory[TOP + positive]


@compiled("void(int64[:,::1], int64[:,:,::1], int64[:,:,::1], int64[::1], uint8[::1])", **INNER)
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
            if is_beyond(memory, data):
                return
            memory[OWN] = rows[COUNTED, y, x]
            memory[OWN_SIGNS] = rows[SIGNED, y, x]
            memory[OWN_SIZES] = rows[SIZED, y, x]
            memory[SHARED] = 16 * memory[OWN]
            memory[BEFORE] = last[y, x]
            memory[BEFORE_2] = before[y, x]
            if edge:
                _look(now, last, rows[COUNTED], y, x, memory)
            expect(rows[POWER, y, x], LEFT, memory[POSITION], seen, memory)
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
            follow(now[y, x], LEFT, memory[POSITION], memory)


@compiled("void(int64, int64[:,:,:,::1], int64[:,:,:,::1], int64[::1])", **INNER)
def _end_channel(now, rows, window, memory):
    """Count a channel: only now, since rows count the channels before, all of them alike."""
    edge, energy = memory[EDGE], end_channel(memory[POSITION], memory[SEEN], memory)
    for i in range(rows.shape[0]):
        for y in range(edge, rows.shape[2] - edge):
            for x in range(edge, rows.shape[3] - edge):
                value = bounded(window[i, now, y, x])
                rows[i, COUNTED, y, x] += value != 0
                rows[i, POWER, y, x] += min((value * value << 16) // energy, 1 << 16)
    memory[SEEN] += 1


@compiled(
    "void(int64[:,:,:,::1], int64[::1], int64[::1], int64[::1], int64, int64[:,:,:,::1], int64[:,:,:,::1], int64[::1], "
    "int64[::1], uint8[::1])",
    **CACHED,
)
def code_kernel(kernel, channels, scales, roots, clips, rows, window, links, memory, data):  # noqa: PLR0913 - compiled functions share no objects
    """Code which rows are live, and the entries of live rows and channels, channel by channel, input by input.

    Args:
        kernel: ``(C, I, h, w)``; filled when reading.
        channels: ``(C,)``, 1 where live.
        scales: ``(C,)``, log2 of what a code stands for, in 1/16.
        roots: ``(8,)``, ``2^16 2^(k/8)``.
        clips: how often a channel has its largest code before it may be clipped.
        rows: ``(I, 5, h + 2 edge, w + 2 edge)``: whether each is live, and zeros for what is counted; the edge is 2,
            or 0 if a filter has one position.
        window: zeros ``(I, 3, h + 2 edge, w + 2 edge)``, for this channel and the two before.
        links: ``(I,)``, from 0 to 6, what the kernel before tells of each input.
        memory: the state.
        data: uint8, the coded bytes.
    """
    edge, scale = (rows.shape[2] - kernel.shape[2]) // 2, 0
    for k in range(STATE, STATE + 48):
        memory[k] = 0
    memory[EDGE], memory[CLIPS] = edge, clips
    memory[KIND] = 2 if not edge else links.size >= kernel.shape[2] * kernel.shape[3]
    start_kernel(memory)
    for c in range(channels.size):
        memory[CHANNELS] += channels[c]
    _code_rows(rows, links, memory, data)
    for c in range(channels.size):
        if not channels[c]:
            continue
        for k in range(FIRST, LAST):
            memory[k] = 0
        start_channel(scale - scales[c], roots, memory)
        scale = scales[c]
        now = memory[SEEN] % 3
        for i in range(links.size):
            memory[LINK] = links[i]
            _code_filter(kernel[c, i], rows[i], window[i], memory, data)
        _end_channel(now, rows, window, memory)
