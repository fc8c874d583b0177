"""One adaptive stream for everything, and one class for both directions.

All by one arithmetic coder: kernels by the model of `scc_tf.coding.mixing.model`, texts, numbers and single bits by
those of `scc_tf.coding.mixing.symbols`. At the end stand the fewest bytes that tell where the coder stood; zeros after
the last are left out.

Numba is imported, and the models compiled or taken from their cache, with the first coder.
"""

import numpy as np

from scc_tf.coding.plans import SIDES, likely_sides, may_be_flat

__all__ = ["LONGEST_TEXT", "MixedCoder"]

_SAMPLE = 32  # channels that the side of an image is chosen on
_STEPS = (8, 16, 32, 64)  # classes of links: a channel's entries over their mean, in 1/16
LONGEST_TEXT = 1 << 17
_ROOM = 1 << 12  # bytes, at first
_LIVE = int(0.9 * (1 << 22)) << 10 | 2  # slots of the flags of channels: most networks have lost their dead ones


class MixedCoder:
    """Writes a stream, or reads it: the same calls with arrays of the same shapes.

    Every array is coded in place: one who writes gives its content, one who reads has it filled.

    Args:
        data: the bytes to read; None to write.

    Attributes:
        reading: bool.

    Source: see `scc_tf.coding.mixing.model`.

    Example:
        >>> writer = MixedCoder()
        >>> writer.numbers(np.array([3, -1, 2]))
        >>> reader, values = MixedCoder(writer.getvalue()), np.zeros(3, np.int64)
        >>> reader.numbers(values)
        >>> values.tolist()
        [3, -1, 2]
    """

    def __init__(self, data=None):
        from scc_tf.coding.mixing import memory, model, symbols  # numba takes as long to import as all the rest

        self.reading = data is not None
        self._start, self._model, self._compiled = memory, model, symbols
        content = bytearray(data if self.reading else _ROOM)  # the models are compiled for what may be written
        self._data = np.frombuffer(content, np.uint8)
        self._memory = memory.start(self._data, self.reading)
        self._symbols = None
        self._arrays = 0
        self._counts = np.zeros(0, np.int64)  # of entries in each channel of the kernel before

    @property
    def bits(self):
        """What was coded so far, bits."""
        low, high, place = (int(self._memory[i]) for i in (self._model.LOW, self._model.HIGH, self._model.NEXT))
        return 8.0 * place + 48 - float(np.log2(high - low + 1))

    def getvalue(self):
        """The bytes that were written."""
        done = self._data[: self._memory[self._model.NEXT]].tobytes()
        return (done + self._end().to_bytes(6, "big")).rstrip(b"\0")

    def _check_within(self):
        if self._model.is_beyond(self._memory, self._data):
            raise ValueError(f"Expected a stream as long as what is in it. Received: {self._data.size} bytes")

    def check_end(self):
        """Raise ValueError if there is more in the stream than was read."""
        next_, code = (int(self._memory[i]) for i in (self._model.NEXT, self._model.CODE))
        if self._data.size > next_ or code != self._end():
            raise ValueError(f"Expected the stream to end here. Received: more in {self._data.size} bytes")

    def _end(self):
        """The number between the coder's bounds that ends in most zeros, 48 bits."""
        low, high = int(self._memory[self._model.LOW]), int(self._memory[self._model.HIGH])
        return next(v for k in range(48, -1, -8) if (v := -(-low >> k) << k) <= high)

    def _reserve(self, size):
        """Make room for so many bytes."""
        short = int(self._memory[self._model.NEXT]) + size + 16 - self._data.size
        if short > 0 and not self.reading:
            self._data = np.concatenate([self._data, np.zeros(max(short, self._data.size), np.uint8)])

    # Texts and numbers ------------------------------------------------------------------------------------------------

    def _state(self):
        if self._symbols is None:
            self._symbols = self._start.start_symbols()
        return self._symbols

    def text(self, text=b"", dictionary=b"", most=LONGEST_TEXT):
        """Code a text, before any numbers.

        Args:
            text: bytes, printable ASCII; ignored when reading.
            dictionary: bytes, texts that end in a 0 each. What the model would know after them it knows from the start.
            most: bytes that a text may have.

        Returns:
            bytes: the text.

        Raises:
            ValueError: if it is longer than ``most``, or no printable ASCII.
        """
        if not self.reading and (len(text) > most or not all(31 < byte < 127 for byte in text)):
            raise ValueError(f"Expected a text of at most {most} bytes of ASCII. Received: {len(text)} bytes")
        self._reserve(2 * len(text) + 2)
        new = np.zeros(most + 1 if self.reading else len(text) + 1, np.uint8)
        new[: len(text)] = np.frombuffer(text, np.uint8)
        start = len(dictionary)
        state, known, plain = self._start.primed(dictionary)
        known, plain, self._symbols = np.append(known, new), np.append(plain, new), state.copy()
        end = self._compiled.code_text(known, start, known.size, plain, self._symbols, self._memory, self._data)
        self._check_within()
        if known[end - 1]:
            raise ValueError(f"Expected a text of at most {most} bytes of ASCII. Received: more, or others")
        return known[start : end - 1].tobytes()

    def numbers(self, values, kind=0):
        """Code integers within 2^62 of 0, small ones in fewer bits.

        Args:
            values: int64 array ``(n,)``.
            kind: from 0 to 15; numbers of one kind are alike, and those of one call more so.
        """
        self._reserve(24 * values.size)
        self._arrays += 1
        self._compiled.code_numbers(values, kind, self._arrays, self._state(), self._memory, self._data)
        self._check_within()

    def number(self, value=0, kind=0):
        """Code one integer, and return it."""
        values = np.array([value], np.int64)
        self.numbers(values, kind)
        return int(values[0])

    def uniform(self, values, width):
        """Code integers ``(n,)``, int64, of ``width`` bits, all equally likely."""
        self._reserve(width * values.size // 8 + 1)
        self._compiled.code_bits(values, width, self._memory, self._data)
        self._check_within()

    # Kernels ----------------------------------------------------------------------------------------------------------

    def kernel(self, kernel):
        """Code a kernel.

        Args:
            kernel: int array ``(height, width, inputs, channels)``, values within int32. Kernels should come in the
                order of the layers: a channel that is all zeros makes zeros of the next kernel's inputs likely.

        Raises:
            ValueError: if it is not such an array, or what is read is not.
        """
        if kernel.ndim != 4 or kernel.dtype.kind not in "iub":
            raise ValueError(
                "Expected integer kernels (height, width, inputs, channels). "
                f"Received: shape={kernel.shape}, dtype={kernel.dtype}"
            )
        side = self._side(kernel) if may_be_flat(kernel.shape) else 1
        view = _split(kernel, side)
        codes = np.array(view, np.int64, order="C", copy=True)
        if not self.reading:
            _check_range(codes)
            self._reserve(_room(codes))
        self._code(codes)
        self._check_within()
        if self.reading:
            _check_range(codes)
            view[...] = codes

    def _side(self, kernel):
        """Code the side of the image that a kernel reads, as its place among those that can be."""
        sides = [side for side in range(1, SIDES) if kernel.shape[2] % side**2 == 0]
        place = np.array([0 if self.reading else sides.index(_likely_side(kernel))])
        self.uniform(place, (len(sides) - 1).bit_length())
        if place[0] >= len(sides):
            raise ValueError(f"Expected one of {len(sides)} sides. Received: number {place[0]}")
        return sides[int(place[0])]

    def _code(self, codes):
        """Code an int64 kernel ``(C, I, h, w)``, in place."""
        model, (inputs, height, width) = self._model, codes.shape[1:]
        if self.reading:
            codes[:] = 0
        edge = 2 * (height * width > 1)
        state = self._memory
        state[model.KIND : model.INPUTS] = 0
        state[model.KIND] = 2 if not edge else int(inputs >= height * width)
        state[model.EDGE] = edge
        state[model.SLOTS :] = 1 << 31
        state[model.SLOTS : model.SLOTS + 2 * model.BLOCK] = _LIVE
        live = codes.any(axis=(1, 2, 3)).astype(np.int64)
        rows = np.zeros((inputs, 4, height + 2 * edge, width + 2 * edge), np.int64)
        inner = slice(edge, edge + height), slice(edge, edge + width)
        rows[:, model.LIVE, *inner] = codes.any(axis=0)
        links = self._links(inputs)
        model.code_liveness(live, rows, links, state, self._data)
        state[model.CHANNELS] = live.sum()
        window = np.zeros((inputs, 3, *rows.shape[2:]), np.int64)
        model.code_weights(codes, live, rows, window, links, state, self._data)
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
    """Bytes that surely suffice for a kernel ``(C, I, h, w)``: a decision costs at most 12 bits."""
    sizes = np.abs(codes)
    unary = int(np.minimum(sizes, 20).sum()) + 70 * np.count_nonzero(sizes >= 20)
    decisions = unary + 2 * sizes.size + sizes.size // max(codes.shape[0], 1) + codes.shape[0]
    return 3 * decisions // 2 + 64


def _likely_side(kernel):
    """The side of the image that a kernel reads, if it is one: what costs less on some of its channels."""
    live = np.flatnonzero(kernel.any(axis=(0, 1, 2)))
    some = kernel[..., live[:: max(live.size // _SAMPLE, 1)]].astype(np.int64)
    sides = likely_sides(some) if live.size else [1]
    return sides[0] if len(sides) == 1 else min(sides, key=lambda side: _trial(some, side))


def _trial(kernel, side):
    coder = MixedCoder()
    codes = np.ascontiguousarray(_split(kernel, side))
    coder._reserve(_room(codes))
    coder._code(codes)
    return coder.bits
