"""One adaptive stream for all that a file holds, and one class for both directions.

All by one arithmetic coder (`scc_tf.coding.mixer`): kernels with the contexts of `scc_tf.coding.kernels`, texts and
numbers with those of `scc_tf.coding.symbols`. At the end stand the fewest bytes that tell where the coder stood; zeros
after the last are left out. ``docs/scc-format.md`` specifies every bit.

Numba is imported, and the models compiled or taken from their cache, with the first stream.
"""

import functools
import math

import numpy as np

__all__ = ["KINDS", "LONGEST_TEXT", "Stream", "entropy_bits"]

LONGEST_TEXT = 1 << 17  # bytes
KINDS = ("flag", "step", "fraction", "fixed", "dropped", "sign", "exponent", "byte")  # of numbers
_EXAMPLES = {  # numbers that the models have seen before the first of a stream
    "flag": [0] * 6,
    "step": [-12, 6, 18, -40, -24, 10, 4, -16, 33, -21],
    "fraction": [4, 4, 5, 3, 4],
    "fixed": [0, 1, -2, 0, 3, -1, 0, -5, 1, 0, 2, 4, -1, -3, 0, 7, -2, 1, 0, -10],
    "dropped": [20, 0, 19, 0],
    "exponent": [-1, 0, -2, -3, 1, 0, -1, 2, -1, -4, -2, 0],
}
_WEIGHTS = (  # first set, set after the last, per input in 1/100; about the means after the networks of MNIST
    (0, 2, (0, 50, 40)),  # a channel is live
    (2, 12, (0, 26, 28, 28, 27)),  # a row is
    (16, 64, (0, 3, 10, 5, -3, 22, 22, 10, 10, 8, 8, 8, 10, 10, 8, 10, 12)),  # an entry is not zero
    (80, 88, (0, 3, 3, 35, 35, 15, 15, 33, 8, 10)),  # it is positive
    (88, 98, (0, 10, 10, 15, 15, 20, 10, 10, 18, 15, 35, 10, 15)),  # it is larger
    (98, 100, (0, 60)),  # length of an excess
    (100, 108, (0, 10, 10, 15, 15, 20, 10, 10, 18, 15, 35, 10, 15)),  # as before
    (103, 108, (0, 2, 2, 40, 40, 3, 3, 3, 3, 3, 3, 10, 15)),  # and codes are large
    (108, 110, (0, 40, 40, 10, 10)),  # the last bits of a magnitude
    (110, 112, (0, 15, 15, 40, 30, 10)),  # it is the largest so far
    (112, 120, (0, 10, 10, 10, 10, 5, 5, 5, 5, 5, 5, 50, 10)),  # it is larger than the largest
    (128, 176, (0, *[17] * 9)),  # of a text
    (256, 280, (0, 3, 10, 5, -3, 22, 22, 10, 10, 8, 8, 8, 10, 10, 8, 10, 12)),
    (280, 284, (0, 3, 3, 35, 35, 15, 15, 33, 8, 10)),
    (284, 300, (0, 10, 10, 15, 15, 20, 10, 10, 18, 15, 35, 10, 15)),
    (176, 256, (0, *[25] * 4)),  # of numbers
)
_SIDES = 32  # a flattened image is at most 31 x 31
_SAMPLE = 32  # channels that the side of an image is chosen on
_STEPS = (8, 16, 32, 64)  # classes of links: a channel's entries over their mean, in 1/16
_ROOM = 1 << 12  # bytes, at first
_ALIVE = int(0.97 * (1 << 22)) << 10 | 2  # slots of the flags of channels: most networks have lost their dead ones
_NOWHERE = np.zeros(0, np.uint8)


class Stream:
    """Writes a stream, or reads it: the same calls with arrays of the same shapes.

    Every array is coded in place: one who writes gives its content, one who reads has it filled.

    Args:
        data: the bytes to read; None to write.

    Attributes:
        reading: bool.

    Example:
        >>> writer = Stream()
        >>> writer.numbers(np.array([3, -1, 2]))
        >>> reader, values = Stream(writer.getvalue()), np.zeros(3, np.int64)
        >>> reader.numbers(values)
        >>> values.tolist()
        [3, -1, 2]
    """

    def __init__(self, data=None):
        self.reading = data is not None
        self._compiled = _models()
        content = bytearray(data if self.reading else _ROOM)  # the models are compiled for what may be written
        self._data = np.frombuffer(content, np.uint8)
        self._memory = _start().copy()
        if self.reading:
            self._compiled[0].start_reading(self._memory, self._data)
        self._counts = np.zeros(0, np.int64)  # of entries in each channel of the kernel before

    def _register(self, name):
        return int(self._memory[getattr(self._compiled[0], name)])

    @property
    def bits(self):
        """What was coded so far, bits."""
        return 8.0 * self._register("NEXT") + 48 - float(np.log2(self._register("HIGH") - self._register("LOW") + 1))

    def getvalue(self):
        """The bytes that were written."""
        done = self._data[: self._register("NEXT")].tobytes()
        return (done + self._end().to_bytes(6, "big")).rstrip(b"\0")

    def check_end(self):
        """Raise ValueError if there is more in the stream than was read."""
        if self._data.size > self._register("NEXT") or self._register("CODE") != self._end():
            raise ValueError(f"Expected the stream to end here. Received: more in {self._data.size} bytes")

    def _end(self):
        """The number between the coder's bounds that ends in most zeros, 48 bits."""
        low, high = self._register("LOW"), self._register("HIGH")
        return next(v for k in range(48, -1, -8) if (v := -(-low >> k) << k) <= high)

    def _run(self, function, *arguments, room=0):
        """Call a compiled function, with room for so many bytes."""
        short = self._register("NEXT") + room + 16 - self._data.size
        if short > 0 and not self.reading:
            self._data = np.concatenate([self._data, np.zeros(max(short, self._data.size), np.uint8)])
        result = function(*arguments, self._memory, self._data)
        if self._compiled[0].is_beyond(self._memory, self._data):
            raise ValueError(f"Expected a stream as long as what is in it. Received: {self._data.size} bytes")
        return result

    # Texts and numbers ------------------------------------------------------------------------------------------------

    def text(self, text=b"", dictionary=b""):
        """Code a text of at most ``LONGEST_TEXT`` bytes.

        Args:
            text: bytes, printable ASCII; ignored when reading.
            dictionary: bytes, texts that end in a 0 each. What the model would know after them it knows from the start.

        Returns:
            bytes: the text.

        Raises:
            ValueError: if it is longer, or no printable ASCII.
        """
        if not self.reading and (len(text) > LONGEST_TEXT or not all(31 < byte < 127 for byte in text)):
            raise ValueError(f"Expected a text of at most {LONGEST_TEXT} bytes of ASCII. Received: {len(text)} bytes")
        mixer, _, symbols = self._compiled
        memory, known, plain = _after(dictionary)
        new = np.zeros(LONGEST_TEXT + 1 if self.reading else len(text) + 1, np.uint8)
        new[: len(text)] = np.frombuffer(text, np.uint8)
        known, plain, start = np.append(known, new), np.append(plain, new), len(dictionary)
        own, self._memory = self._memory, memory.copy()
        coder = slice(mixer.LOW, mixer.DECODING + 1)
        self._memory[coder] = own[coder]
        end = self._run(symbols.code_text, known, start, known.size, plain, mixer.SLOTS, room=2 * len(text) + 2)
        own[coder] = self._memory[coder]
        self._memory = own
        if known[end - 1]:
            raise ValueError(f"Expected a text of at most {LONGEST_TEXT} bytes of ASCII. Received: more, or others")
        return known[start : end - 1].tobytes()

    def numbers(self, values, kind="flag"):
        """Code integers within 2^62 of 0, small ones in fewer bits.

        Args:
            values: int64 array ``(n,)``.
            kind: one of ``KINDS``; numbers of one kind are alike, and those of one call more so.
        """
        code, slots = self._compiled[2].code_numbers, self._compiled[1].END
        self._run(code, values, KINDS.index(kind), slots, room=24 * values.size)

    def number(self, value=0, kind="flag"):
        """Code one integer, and return it."""
        values = np.array([value], np.int64)
        self.numbers(values, kind)
        return int(values[0])

    def uniform(self, values, width):
        """Code integers ``(n,)``, int64, of ``width`` bits, all equally likely."""
        self._run(self._compiled[0].code_bits, values, width, room=width * values.size // 8 + 1)

    # Kernels ----------------------------------------------------------------------------------------------------------

    def channels(self, kernel):
        """Code which channels of a kernel are not all zeros; to be called before `kernel`.

        Args:
            kernel: as for `kernel`.

        Returns:
            bool array ``(channels,)``.

        Raises:
            ValueError: if it is no kernel.
        """
        if kernel.ndim != 4 or kernel.dtype.kind not in "iub":
            raise ValueError(
                "Expected integer kernels (height, width, inputs, channels). "
                f"Received: shape={kernel.shape}, dtype={kernel.dtype}"
            )
        mixer, kernels, _ = self._compiled
        self._memory[mixer.SLOTS : kernels.END] = 1 << 31
        self._memory[mixer.SLOTS : mixer.SLOTS + 2 * kernels.BLOCK] = _ALIVE
        live = kernel.any(axis=(0, 1, 2)).astype(np.int64)
        self._run(kernels.code_channels, live, room=2 * live.size)
        return live != 0

    def kernel(self, kernel, live, scales=None):
        """Code the rest of a kernel.

        Args:
            kernel: int array ``(height, width, inputs, channels)``, values within int32. Kernels should come in the
                order of the layers: a channel that is all zeros makes zeros of the next kernel's inputs likely.
            live: what `channels` returned.
            scales: int array ``(channels,)``, log2 of what a code of each channel stands for, in 1/16: weights are
                about alike in size. None where nothing is known.

        Raises:
            ValueError: if a value is beyond int32.
        """
        clips = 1 << 30 if scales is None else 3
        scales = np.full(live.size, -80) if scales is None else np.clip(scales, -320, 320)
        side = self._side(kernel, live, scales, clips) if _may_be_flat(kernel.shape) else 1
        view = _split(kernel, side)
        codes = np.array(view, np.int64, order="C", copy=True)
        self._code(codes, live, scales, clips)
        if self.reading:
            view[...] = codes

    def _side(self, kernel, live, scales, clips):
        """Code the side of the image that a kernel reads, as its place among those that can be."""
        sides = [side for side in range(1, _SIDES) if kernel.shape[2] % side**2 == 0]
        place = np.array([0 if self.reading else sides.index(_likely_side(kernel, live, scales, clips))])
        self.uniform(place, (len(sides) - 1).bit_length())
        if place[0] >= len(sides):
            raise ValueError(f"Expected one of {len(sides)} sides. Received: number {place[0]}")
        return sides[int(place[0])]

    def _code(self, codes, live, scales, clips):
        """Code an int64 kernel ``(C, I, h, w)``, in place."""
        _, kernels, _ = self._compiled
        _check_range(codes)
        if self.reading:
            codes[:] = 0
        edge = 2 * (codes[0, 0].size > 1) if codes.size else 0
        _, inputs, height, width = codes.shape
        rows = np.zeros((inputs, 5, height + 2 * edge, width + 2 * edge), np.int64)
        rows[:, kernels.LIVE, edge : edge + height, edge : edge + width] = codes.any(axis=0)
        window = np.zeros((inputs, 3, *rows.shape[2:]), np.int64)
        channels = live.astype(np.int64), scales.astype(np.int64), _roots(), clips
        arguments = codes, *channels, rows, window, self._links(inputs)
        self._run(kernels.code_kernel, *arguments, room=0 if self.reading else _room(codes))
        _check_range(codes)
        self._counts = np.count_nonzero(codes, axis=(1, 2, 3))

    def _links(self, inputs):
        """Class ``(I,)`` of the channel before that each input reads: 0 unknown, 1 dead, from 2 by its entries."""
        counts, channels = self._counts, self._counts.size
        if not channels or inputs % channels:
            return np.zeros(inputs, np.int64)
        mean = max(int(counts.sum()), 1)
        classes = 2 + np.searchsorted(_STEPS, 16 * counts * np.count_nonzero(counts) // mean, side="right")
        return np.where(counts, classes, 1)[np.arange(inputs) % channels]


def _check_range(codes):
    low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
    if not -(1 << 31) <= low <= high < 1 << 31:
        raise ValueError(f"Expected values within int32. Received: from {low} to {high}")


def _split(kernel, side):
    """``(height, width, inputs, channels)`` as ``(C, I, h, w)``, a view if it can be."""
    height, width, inputs, channels = kernel.shape
    image = kernel.reshape(height * side, width * side, inputs // side**2, channels)
    return image.transpose(3, 2, 0, 1)


def _room(codes):
    """Bytes that surely suffice for a kernel: a decision costs at most 12 bits."""
    sizes = np.abs(codes)
    magnitudes = int(np.minimum(sizes, 20).sum()) + 100 * np.count_nonzero(sizes)
    return 3 * (magnitudes + 3 * sizes.size) // 2 + 64


def entropy_bits(codes):
    """Zero-order entropy of an integer array of any shape, bits in total: what no code without contexts goes below.

    Example:
        >>> entropy_bits(np.array([0, 0, 1, 1]))
        4.0
    """
    counts = np.unique(codes, return_counts=True)[1]
    return float(np.sum(counts * np.log2(codes.size / counts))) if codes.size else 0.0


# The side of a flattened image ---------------------------------------------------------------------------------------


def _may_be_flat(shape):
    return shape[:2] == (1, 1) and shape[2] > 3


def _likely_side(kernel, live, scales, clips):
    """The side of the image that a kernel reads, if it is one: what costs less on some of its channels."""
    live = np.flatnonzero(live)
    if not live.size:
        return 1
    some = live[:: max(live.size // _SAMPLE, 1)]
    codes = kernel[..., some].astype(np.int64)
    flat = codes[0, 0] / np.sqrt(np.mean(codes[0, 0] ** 2.0, axis=0))
    alike = {}
    for side in range(2, _SIDES):
        if flat.shape[0] % side**2 == 0:
            image = flat.reshape(side, side, -1, flat.shape[1])
            alike[side] = np.mean(image[:, 1:] * image[:, :-1]) + np.mean(image[1:] * image[:-1])
    if not alike:
        return 1

    def bits(side):
        trial = Stream()
        trial.channels(codes)
        trial._code(np.ascontiguousarray(_split(codes, side)), np.ones(some.size, bool), scales[some], clips)
        return trial.bits

    return min((1, max(alike, key=alike.get)), key=bits)


# What a stream starts from -------------------------------------------------------------------------------------------


@functools.cache
def _models():
    from scc_tf.coding import kernels, mixer, symbols  # numba takes as long to import as all the rest

    return mixer, kernels, symbols


@functools.cache
def _roots():
    """``2^16 2^(k/8)`` for ``k`` from 0 to 7, int64."""
    return np.array([math.isqrt(math.isqrt(math.isqrt(1 << 128 + k))) for k in range(8)], np.int64)


@functools.cache
def _start():
    """The memory before the first bit. Not to be changed."""
    mixer, kernels, symbols = _models()
    size = kernels.END + symbols.NUMBERS * symbols.NUMBER_BLOCK
    memory = mixer.new_memory(size, _WEIGHTS)
    for kind, values in _EXAMPLES.items():
        symbols.code_numbers(np.array(values), KINDS.index(kind), kernels.END, memory, _NOWHERE)
    mixer.restart(memory)
    return memory


@functools.lru_cache(maxsize=4)
def _after(dictionary):
    """``(memory, text, plain)`` after a dictionary, as for `scc_tf.coding.symbols.code_text`. Not to be changed."""
    mixer, _, symbols = _models()
    memory = mixer.new_memory(mixer.SLOTS + symbols.TEXT_SIZE, _WEIGHTS)
    memory[mixer.SLOTS : mixer.SLOTS + symbols.TEXT_SEEN] = 0
    text = np.frombuffer(bytearray(dictionary), np.uint8)
    plain, place = np.zeros_like(text), 0
    while place < text.size:
        place = symbols.code_text(text, place, text.size, plain, mixer.SLOTS, memory, _NOWHERE)
    mixer.restart(memory)
    return memory, text, plain
