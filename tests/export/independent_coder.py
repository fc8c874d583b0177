"""The arithmetic coder, the mixer and the model of texts of `independent_reader`."""

import copy
import functools
import math
from operator import mul

FLAG = (0, 3, 10, 5, -3, 22, 22, 10, 10, 8, 8, 8, 10, 10, 8, 10, 12)
SIGN = (0, 3, 3, 35, 35, 15, 15, 33, 8, 10)
SIZE = (0, 10, 10, 15, 15, 20, 10, 10, 18, 15, 35, 10, 15)
WEIGHTS = {
    **{(0, 2): (0, 50, 40), (2, 12): (0, 26, 28, 28, 27), (16, 64): FLAG, (256, 280): FLAG, (80, 88): SIGN},
    **{(280, 284): SIGN, (88, 98): SIZE, (100, 103): SIZE, (284, 300): SIZE, (98, 100): (0, 60)},
    **{(103, 108): (0, 2, 2, 40, 40, 3, 3, 3, 3, 3, 3, 10, 15), (108, 110): (0, 40, 40, 10, 10)},
    **{(110, 112): (0, 15, 15, 40, 30, 10), (112, 120): (0, 10, 10, 10, 10, 5, 5, 5, 5, 5, 5, 50, 10)},
    **{(128, 176): (0, *[17] * 9), (176, 256): (0, *[25] * 4)},
}


def clamp(x, low, high):
    return min(max(x, low), high)


def length(x, most):
    return min(x.bit_length(), most) if x > 0 else 0


def grade(x):
    bits = length(x, 7)
    return 2 * bits + (x >> max(bits - 2, 0) & 1)


def sgn(x):
    return (x > 0) - (x < 0)


# Tables --------------------------------------------------------------------------------------------------------------


def exp_minus(denominator):
    result, term, n = 0, 1 << 96, 0
    while term:
        result += -term if n % 2 else term
        n += 1
        term //= denominator * n
    return result


def make_squash():
    table, w, r = {}, 1 << 96, exp_minus(256)
    for x in range(2841):
        s = (1 << 112) // ((1 << 96) + w)
        table[x], table[-x] = min(s, 65535), max(65536 - s, 1)
        w = w * r >> 96
    table[0] = 65536 - (1 << 112) // (1 << 97)
    return table


def make_normal():
    g, r, c, area, areas = 1 << 96, exp_minus(1 << 17), exp_minus(1 << 16), 0, [0]
    for _ in range(2048):
        g, before = g * r >> 96, g
        area += g + before
        areas.append(area)
        r = r * c >> 96
    upper = [(1 << 39) + (a << 39) // area for a in areas]
    return {**{-x: (1 << 40) - u for x, u in enumerate(upper)}, **dict(enumerate(upper))}


SQUASH, NORMAL, STRETCH = make_squash(), make_normal(), []
_x = -2840
for _p in range(1 << 16):
    while _x < 2840 and SQUASH[_x + 1] <= _p:
        _x += 1
    STRETCH.append(_x)
CONFIDENCE = [512 * n // (2 * n + 3) for n in range(1024)]
RATE = [655360 // (10 * n + 18) for n in range(1024)]
ROOT = [math.isqrt(math.isqrt(math.isqrt(1 << 128 + j))) for j in range(8)]


def log_odds(p):
    return STRETCH[clamp(p, 8, 65528)]


# Coder and mixer -----------------------------------------------------------------------------------------------------


class Coder:
    """The registers; without data it learns only."""

    def __init__(self, data):
        self.data, self.low, self.high, self.next = data, 0, (1 << 48) - 1, 6
        self.code = int.from_bytes(data[:6].ljust(6, b"\0"), "big")

    def bit(self, p):
        spread = self.high - self.low
        middle = self.low + (spread >> 16) * p + ((spread & 65535) * p >> 16)
        bit = int(self.code <= middle)
        self.low, self.high = (self.low, middle) if bit else (middle + 1, self.high)
        while self.low >> 40 == self.high >> 40:
            byte = self.data[self.next] if self.next < len(self.data) else 0
            self.low = (self.low << 8) % (1 << 48)
            self.high = (self.high << 8) % (1 << 48) + 255
            self.code = (self.code << 8) % (1 << 48) + byte
            self.next += 1
        return bit

    def uniform(self, width):
        value = 0
        for _ in range(width):
            value = 2 * value + self.bit(1 << 15)
        return value

    def is_at_end(self):
        ends = (-(-self.low >> 8 * k) << 8 * k for k in range(6, -1, -1))
        return self.code == next(end for end in ends if end <= self.high) and self.next >= len(self.data)


class Mixer:
    """Sets of weights; a slot is a list ``[probability, uses]``."""

    def __init__(self):
        self.sets, self.used = [[0] * 19 for _ in range(320)], [0] * 320
        for (first, after), hundredths in WEIGHTS.items():
            for k in range(first, after):
                self.sets[k][: len(hundredths)] = [w * 65536 // 100 for w in hundredths]

    def decide(self, coder, given, slots, sets, bit=None):
        """A bit that is read, or ``bit`` where nothing is."""
        inputs = [256, *given, *[STRETCH[p >> 6] * CONFIDENCE[n] >> 8 for p, n, *_ in slots]]
        dots = {k: clamp(sum(map(mul, self.sets[k], inputs)) >> 16, -2840, 2840) for k in sets}
        p = clamp(SQUASH[sum(dots[k] for k in sets) // 3], 16, 65520)
        bit = coder.bit(p) if bit is None else bit
        errors = {k: (65535 * bit - SQUASH[dots[k]]) * (3 + 2600 // (self.used[k] + 32)) for k in dots}
        for k in sets:
            weights, error = self.sets[k], errors[k]
            for j, x in enumerate(inputs):
                weights[j] += x * error + (1 << 18) >> 19
            self.used[k] += 1
        target = bit * ((1 << 22) - 1)
        for slot in slots:
            if not slot[1]:
                slot[0] = p << 6
            slot[0] += (target - slot[0]) * RATE[slot[1]] >> 16
            slot[1] = min(slot[1] + 1, 1000)
        return bit


class Tables(dict):
    """Slots by any key."""

    def __missing__(self, key):
        self[key] = [1 << 21, 0]
        return self[key]


# Text ----------------------------------------------------------------------------------------------------------------


def signed(x):
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


def hashed(v, m, b):
    x = signed((v * 0x2545F491 + m + 1) * 0x9E3779B97F4A7C1)
    return signed((x ^ x >> 29) * 0x2545F4914F6CDD1) >> 20 & (1 << b) - 1


def last(s, n):
    mixed = n
    for byte in s[-n:]:
        mixed = hashed(mixed, byte, 40)
    return mixed


class Text:
    """The model of texts, after a dictionary."""

    def __init__(self, dictionary=b""):
        self.mixer, self.base, self.slots, self.text, self.plain = Mixer(), {}, {}, bytearray(), bytearray()
        self.noted, self.match, self.lengths = ({}, {}), [0, 0], [0, 0]
        self.digits = self.number = self.skeleton = 0
        for byte in dictionary:
            self.byte(None, byte)

    def continued(self):
        """A copy; the many slots are copied when they are used."""
        other = copy.copy(self)
        other.base, other.slots = self.slots, {}
        for name in ("mixer", "text", "plain", "noted", "match", "lengths"):
            setattr(other, name, copy.deepcopy(getattr(self, name)))
        return other

    def read(self, coder):
        start = len(self.text)
        while self.byte(coder):
            if len(self.text) > start + 4096:
                raise ValueError(f"Expected a short text. Received: {bytes(self.text[start : start + 80])}")
        return bytes(self.text[start:-1])

    def byte(self, coder, byte=None):
        text, plain, match = self.text, self.plain, self.match
        ends = {n: last(plain, n) for n in (8, 12, 32)}
        for j, n in enumerate((12, 32)):
            key = hashed(ends[n], self.digits, 40) % (1 << 14)
            right = match[j] and text[match[j]] == text[-1]
            self.lengths[j] = self.lengths[j] + 1 if right else 0
            match[j] = match[j] + 1 if right and j else self.noted[j].get(key, 0)
            self.noted[j][key] = len(text)
        contexts = [hashed(last(text, n), 0, 40) for n in (1, 2, 3, 6)]
        contexts += [hashed(ends[8], self.number, 40), hashed(ends[32], self.number, 40)]
        contexts.append(hashed(self.skeleton, self.number, 40))
        contexts = [hashed(context, j, 40) for j, context in enumerate(contexts)]
        around, known, inside = hashed(ends[8], 0, 40), 1, int(self.digits > 0)
        promises = [256 + text[m] if m else 0 for m in match]
        for k in range(7, -1, -1):
            one, two = (b if b >> k + 1 == known else 0 for b in promises)
            g = (1 + (self.lengths[0] > 7) + (self.lengths[0] > 31)) if one else 0
            g += 4 * (1 + (self.lengths[1] > 7) + (self.lengths[1] > 31)) if two else 0
            late = hashed(hashed(two, min(self.lengths[1], 15), 40), 7, 40)
            places = []
            for context in (*contexts, late, hashed(hashed(one << 9 | two, around, 40), 8, 40)):
                h = hashed(context, known, 50)
                place, owner = h % (1 << 20), h >> 20
                slot = self.slots.get(place)
                if slot is None and place in self.base:
                    slot = self.slots[place] = self.base[place].copy()
                if slot is None or slot[2] != owner:
                    slot = self.slots[place] = [1 << 21, 0, owner]
                places.append(place)
            slots = [self.slots[place] for place in places]  # two contexts may have one
            sets = 128 + 2 * g + inside, 160 + 2 * k + inside, 160 + 2 * k + inside
            bit = None if byte is None else byte >> k & 1
            known = 2 * known + self.mixer.decide(coder, (), slots, sets, bit)
        self.append(known & 255)
        return known & 255

    def append(self, byte):
        digit = 48 <= byte < 58
        if not digit or not self.digits:
            self.plain.append(48 if digit else byte)
            self.skeleton = hashed(self.skeleton, self.plain[-1], 40) if byte else 0
        self.digits = self.digits + 1 if digit else 0
        self.number = hashed(self.number, byte, 40) if digit else 0
        self.text.append(byte)


@functools.cache
def after(dictionary):
    return Text(dictionary)
