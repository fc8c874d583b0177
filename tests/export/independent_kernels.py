"""The kernels of `independent_reader`."""

import math

import numpy as np
from independent_coder import NORMAL, Tables, clamp, grade, length, log_odds, sgn

ROOT = [math.isqrt(math.isqrt(math.isqrt(1 << 128 + j))) for j in range(8)]


def bound(x):
    return clamp(x, -4096, 4096)


class Kernel:
    """A kernel of integers ``(…, inputs, channels)`` with at most two axes before; channels are read at once."""

    def __init__(self, reader, shape):
        self.reader, self.shape, self.slots, self.channels, recent = reader, shape, Tables(), [], 0
        for key in [("channel", 0, 0)] + [("channel", 1, k) for k in range(4)]:
            self.slots[key] = [4068474, 2]
        for _ in range(shape[-1]):
            self.channels.append(self.decide("channel", (), (0, recent), (0, 1, 1)))
            recent = (recent * 2 + self.channels[-1]) & 3

    def decide(self, name, given, contexts, sets):
        slots = [self.slots[name, j, c] for j, c in enumerate(contexts)]
        return self.reader.mixer.decide(self.reader.coder, given, slots, sets)

    def read(self, scales, clips):
        height, width, inputs, channels = (1,) * (4 - len(self.shape)) + tuple(self.shape)
        side = 1
        if height == width == 1 and inputs > 3:
            sides = [k for k in range(1, 32) if inputs % k**2 == 0]
            side = sides[self.reader.coder.uniform((len(sides) - 1).bit_length())]
        self.h, self.w, self.i, self.clips = height * side, width * side, inputs // side**2, clips
        self.kind = 2 if self.h * self.w == 1 else int(self.i >= self.h * self.w)
        self.places = [(y, x) for y in range(self.h) for x in range(self.w)]
        self.links = self.link_of_inputs()
        self.live_rows = self.rows()
        codes = np.zeros((self.h, self.w, self.i, channels), np.int64)
        self.seen = self.past = self.entries = self.total = scale = 0
        self.energy = 3
        self.own, self.own_signs, self.own_sizes, self.power = ({} for _ in range(4))
        self.b = self.bb = {}
        for c in (c for c, flag in enumerate(self.channels) if flag):
            d, scale = clamp(scale - scales[c], -127, 127), scales[c]
            f = ROOT[d & 7] << max(d >> 3, 0) >> max(-(d >> 3), 0)
            self.energy = clamp(min(self.energy, 1 << 30) * f >> 16, 8, 1 << 30)
            self.b, self.bb = self.channel(), self.b
            for (i, y, x), value in self.b.items():
                codes[y, x, i, c] = value
        self.reader.counts = np.count_nonzero(codes, axis=(0, 1, 2)).tolist()
        return codes.reshape(self.shape)

    def link_of_inputs(self):
        counts = self.reader.counts
        if not counts or self.i % len(counts):
            return [0] * self.i
        live, whole = sum(n > 0 for n in counts), max(sum(counts), 1)
        links = [2 + sum(k <= 16 * n * live // whole for k in (8, 16, 32, 64)) if n else 1 for n in counts]
        return [links[i % len(counts)] for i in range(self.i)]

    def rows(self):
        rows, recent = {}, 0
        for i in range(self.i):
            link, some = min(self.links[i], 2), 0
            for y, x in self.places:

                def flag(dy, dx, i=i, y=y, x=x):
                    return rows.get((i, y + dy, x + dx), 0)

                near, corners = flag(0, -1) + 2 * flag(-1, 0), flag(-1, -1) + 2 * flag(-1, 1)
                contexts = (
                    4 * link + recent,
                    near + 4 * corners + 16 * (x == y == 0 and self.kind < 2),
                    4 * link + 2 * some + (y + x > 0),
                    4 * near + flag(-2, 0) + 2 * flag(0, -2),
                )
                found = rows[i, y, x] = self.decide("row", (), contexts, (2 + self.kind, 8 + link, 8 + link))
                recent, some = (recent * 2 + found) & 3, some | found
        return rows

    # One channel ------------------------------------------------------------------------------------------------------

    def channel(self):
        self.position = self.count = self.sizes = self.signs = self.expected = 0
        self.gap = self.recent = self.sign1 = self.sign2 = self.own_energy = 0
        self.top, self.hits, self.v = [0, 0], [0, 0], {}
        for i in range(self.i):
            self.place = self.filled = 0
            for y, x in self.places:
                self.v[i, y, x] = self.entry(i, y, x) if self.live_rows[i, y, x] else 0
        e = self.own_energy // (self.position + 1) + 8
        self.energy += (e - self.energy) // min(self.seen + 1, 16)
        for row, value in self.v.items():
            self.power[row] = self.power.get(row, 0) + min((bound(value) ** 2 << 16) // e, 1 << 16)
            self.own[row] = self.own.get(row, 0) + (value != 0)
        self.seen += 1
        return self.v

    def entry(self, i, y, x):
        row, spatial = (i, y, x), self.kind < 2

        def at(values, dy, dx):
            return values.get((i, y + dy, x + dx), 0)

        self.around4 = [at(self.v, *d) if spatial else 0 for d in ((0, -1), (-1, 0), (-1, -1), (-1, 1))]
        taps, neighbours = self.reader.taps, [bound(value) for value in self.around4]
        self.means = [clamp(sum(map(int.__mul__, tap, neighbours)) >> 8, -1 << 20, 1 << 20) for tap in taps]
        variance = (self.own_energy + 16 * self.energy) // (self.position + 16) + 8
        ratio = (self.power.get(row, 0) + 10240) // (self.seen + 40)
        deviations = math.isqrt(variance << 8), math.isqrt(max(variance * ratio, 256))
        self.inverse = [(1 << 24) // deviation for deviation in deviations]
        value = 0
        flag = self.flag(row, at)
        self.position, self.place, self.past, self.gap = (
            n + 1 for n in (self.position, self.place, self.past, self.gap)
        )
        if self.gap > 3:
            self.recent = 0
        if flag:
            s = self.sign(row, at)
            magnitude = self.magnitude(row, at, s)
            value = magnitude if s else -magnitude
            self.note(row, s, magnitude)
        e = self.own_energy // (self.position + 1) + 64
        for k in range(2):
            error = clamp((value << 8) - self.means[k], -1 << 20, 1 << 20)
            g = (error << (10, 7)[k]) // e
            taps[k] = [clamp(t + g * n, -1 << 18, 1 << 18) for t, n in zip(taps[k], neighbours, strict=True)]
        self.own_energy += error * error >> 8
        return value

    def note(self, row, s, magnitude):
        size, side = min(magnitude, 64) - 1, 2 * s - 1
        self.own_signs[row] = self.own_signs.get(row, 0) + side
        self.own_sizes[row] = self.own_sizes.get(row, 0) + size
        self.count, self.filled, self.entries = self.count + 1, self.filled + 1, self.entries + 1
        self.signs, self.sizes, self.total = self.signs + side, self.sizes + size, self.total + size
        self.sign1, self.sign2, self.recent, self.gap = 1 + s, self.sign1, min(magnitude, 3), 0
        if magnitude > self.top[s]:
            self.top[s], self.hits[s] = magnitude, 0
        self.hits[s] += magnitude == self.top[s]

    def above(self, m, side, k):
        place = clamp(256 * m - 128 - side * self.means[k], -1 << 24, 1 << 24) * self.inverse[k] >> 16
        return NORMAL[clamp(-place, -2048, 2048)]

    def between(self, low, middle, high, side):
        given = []
        for k in range(2):
            beyond = self.above(high, side, k) if high is not None else 0
            part = self.above(middle, side, k) - beyond + (1 << 24)
            given.append(log_odds((part << 16) // (self.above(low, side, k) - beyond + (1 << 25))))
        return given

    def flag(self, row, at):
        own, seen, count, spatial = self.own.get(row, 0), self.seen, self.count, self.kind < 2
        left, up, upleft, upright = self.around4
        left2, up2, right_b, down_b, wide, shared = 0, 0, 0, 0, 0, 16 * own
        if spatial:
            left2, up2 = at(self.v, 0, -2), at(self.v, -2, 0)
            right_b, down_b = at(self.b, 0, 1), at(self.b, 1, 0)
            causal = [(0, -1), (0, -2)] + [(dy, dx) for dy in (-1, -2) for dx in range(-2, 3)]
            wide = sum(at(self.v, *d) != 0 for d in causal)
            near3 = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            shared = sum(at(self.own, *d) << 2 - abs(d[0]) - abs(d[1]) for d in near3)
        density = clamp(((self.entries << 16) + 65536) // (self.past + 16), 32, 65000)
        share = ((own << 16) + 2 * density) // (seen + 2)
        around = clamp(((shared << 16) + 128 * density) // (16 * seen + 128), 8, 65000)
        surplus = ((count + 4) << 24) // (self.expected + (4 << 16))
        self.expected += around
        guess = log_odds(around * surplus >> 8)
        given = [log_odds(share), log_odds(around), guess, log_odds(share * surplus >> 8)]
        given += [log_odds(self.above(1, 1, k) + self.above(1, -1, k) >> 24) for k in range(2)]
        likely = self.likely = clamp(guess + 2048 >> 7, 0, 23)
        excess = length(surplus >> 6, 5) + (surplus >= 192) + (surplus >= 384)
        near = 2 * ((left != 0) + (up != 0)) + (upleft != 0) + (upright != 0)
        pattern = (left != 0) + 2 * (up != 0)
        b, bb = at(self.b, 0, 0), at(self.bb, 0, 0)
        link, live = self.links[row[0]], sum(self.channels)
        weigh = 2 * (abs(left) + abs(up)) + abs(upleft) + abs(upright)
        sizes = 4 * min(abs(left), 3) + min(abs(up), 3)
        filled = 8 * min(self.filled, 7) + length(self.place, 7)
        contexts = (
            8 * likely + near,
            pattern + 4 * (upleft != 0) + 8 * (upright != 0) + 16 * (left2 != 0) + 32 * (up2 != 0),
            (sizes * 3 + min(abs(upright), 2)) * 3 + min(abs(upleft), 2),
            16 * pattern + (b != 0) + 2 * (bb != 0) + 4 * (right_b != 0) + 8 * (down_b != 0),
            8 * clamp(given[0] + 2048 >> 8, 0, 11) + excess,
            16 * (4 * link + min(own, 3)) + length(live - seen, 11),
            16 * min(count, 7) + length(self.position, 15),
            filled if spatial else 4 * length(self.gap, 7) + self.recent,
            8 * length(8 * (self.sizes + count) // (self.position + 1), 7) + length(weigh, 7),
            24 * wide + likely,
        )
        sets = 16 + 8 * self.kind + near, 40 + 8 * self.kind + excess, 256 + (given[5] + 2848 >> 8)
        return self.decide("flag", given, contexts, sets)

    def sign(self, row, at):
        own, own_signs = self.own.get(row, 0), self.own_signs.get(row, 0)
        left, up, upleft, upright = self.around4
        given = [log_odds(((own + own_signs << 15) + 65536) // (own + 2))]
        given.append(log_odds(((self.count + self.signs << 15) + 65536) // (self.count + 2)))
        for k in range(2):
            u, lower = self.above(1, 1, k) + (1 << 24), self.above(1, -1, k) + (1 << 24)
            given.append(log_odds((u << 16) // (u + lower)))
        pull = 2 * (left + up) + upleft + upright
        near = 2 * ((left != 0) + (up != 0)) + (upleft != 0) + (upright != 0)
        before = 3 * sgn(at(self.b, 0, 0)) + sgn(at(self.bb, 0, 0)) + 4
        contexts = (
            27 * sgn(left) + 9 * sgn(up) + 3 * sgn(upleft) + sgn(upright) + 40,
            9 * before + 3 * self.sign1 + self.sign2,
            3 * (clamp(pull, -7, 7) + 7) + self.sign1,
            7 * (clamp(own_signs, -3, 3) + 3) + clamp(self.signs, -3, 3) + 3,
            given[3] + 2848 >> 7,
        )
        return self.decide("sign", given, contexts, (80 + self.kind, 84 + min(near, 3), 280 + sgn(pull) + 1))

    def magnitude(self, row, at, s):
        own, own_sizes, count = self.own.get(row, 0), self.own_sizes.get(row, 0), self.count
        left, up, upleft, upright = self.around4
        near = 2 * ((left != 0) + (up != 0)) + (upleft != 0) + (upright != 0)
        weigh, side = 2 * (abs(left) + abs(up)) + abs(upleft) + abs(upright), 2 * s - 1
        mean = grade((8 * self.sizes + 8) // (count + 2) if count else 8 * self.total // (self.entries + 1))
        mean_r, around = grade(8 * own_sizes // max(own, 1)), grade(4 * weigh // max(near, 1))
        agree = clamp((2 * (left + up) + upleft + upright) * side, -6, 6) + 6
        for k, t in enumerate((s, 1 - s)):
            top, hit = self.top[t] - k * side, self.hits[t]
            alike = count + (2 * t - 1) * self.signs >> 1
            clipped = top > 3 and top >= self.top[s] and hit >= self.clips and 5 * hit > 2 * alike
            if clipped:
                break
        if clipped:
            grades = 16 * min(8 * hit // alike, 7) + length(hit, 15), 8 * min(16 * hit // alike, 15) + near
            if self.decide("largest", self.between(1, top, None, side), (*grades, agree), (110, 111, 111)):
                return top
        else:
            top, hit = self.top[s], self.hits[s]
        shares = [log_odds((n + 1 << 16) // (n + m + 2)) for n, m in ((self.sizes, count), (own_sizes, own))]
        width = length((1 << 24) // self.inverse[1] >> 10, 24)
        found, step, more = 1, 0, 1
        classes = around, mean, mean_r, agree, 4 * min(abs(at(self.b, 0, 0)), 3) + min(abs(left), 3)
        while more and step < 20:
            following, high = found + (1 << width), top if clipped and found < top else None
            middle = following if high is None else min(following, high)
            given = shares + self.between(found, middle, high, side)
            contexts = [16 * step + k for k in classes] + [24 * step + 2 * (self.likely // 2) + s]
            contexts.append(8 * (2 * (3 * min(found, 15) + 1 + sgn(found - top)) + clipped) + length(hit, 7))
            contexts.append(given[3] + 2848 >> 7)
            second = 112 + length(hit, 5) if found == top else 100 + min(mean >> 1, 7)
            more = self.decide("size", given, contexts, (88 + min(step, 7), second, 284 + around))
            if more:
                found, step = following, step + 1
        if more:
            found += self.excess() << width
        node = 1
        for k in range(width - 1, -1, -1):
            given = self.between(found, found + (1 << k), found + (2 << k), side)
            contexts = 16 * min(node, 15) + min(width - k, 15), given[1] + 2848 >> 7
            bit = self.decide("lowest", given, contexts, (108, 109, 109))
            found, node = found + (bit << k), 2 * node + bit
        return found

    def excess(self):
        n = 0
        while n < 32 and self.decide("excess", (), (n,), (98, 99, 99)):
            n += 1
        return (1 << n | self.reader.coder.uniform(n)) - 1
