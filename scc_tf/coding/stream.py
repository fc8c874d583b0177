"""One range-coded stream of symbols: `Writer` makes the bytes, `Reader` takes them apart.

Every probability is a table of integer frequencies. The tables reach constriction as float64 numbers that are
integers below 2^53, hence exact, and constriction turns them into 24-bit fixed point (``perfect=False``) by sums,
one division and one multiplication per entry in a fixed order. Those are IEEE 754 operations, rounded alike on every
machine, so the encoder and a decoder elsewhere have bit-equal models. No exponential, logarithm or sum in an order of
NumPy's choosing ever touches a frequency.
"""

import constriction
import numpy as np

__all__ = ["Reader", "Writer"]

models, queue = constriction.stream.model, constriction.stream.queue

_DIGIT = 1 << 16
_CALL = 1 << 11  # about as long as one call takes, in entries of a table
_FAMILY = models.Categorical(perfect=False)


def _categorical(frequencies):
    return models.Categorical(np.ascontiguousarray(frequencies, np.float64), perfect=False)


class Writer:
    """Writes symbols into one stream of bytes. A `Reader` must ask for the same symbols in the same order.

    Attributes:
        bits: what the symbols so far cost by their tables, bits; `getvalue` adds up to 4 bytes.

    Source: range coding, Martin 1979; constriction, Bamler 2022 (arXiv 2201.01741).

    Example:
        >>> writer = Writer()
        >>> writer.uniform([3, 1, 2], 4)
        >>> Reader(writer.getvalue()).uniform(3, 4).tolist()
        [3, 1, 2]
    """

    def __init__(self):
        self._coder = queue.RangeEncoder()
        self.bits = 0.0

    def symbols(self, symbols, frequencies):
        """Write symbols that share one table.

        Args:
            symbols: int array ``(n,)``, from 0 to ``A - 1``.
            frequencies: int array ``(A,)``, not negative, with a positive sum below 2^53.
        """
        if len(frequencies) > 1 and len(symbols):
            self._coder.encode(np.ascontiguousarray(symbols, np.int32), _categorical(frequencies))
            share = np.maximum(frequencies, 1) / np.sum(frequencies)
            self.bits -= float(np.bincount(symbols, minlength=len(frequencies)) @ np.log2(share))

    def rows(self, symbols, frequencies):
        """Write symbols that have a table each: ``(n,)`` symbols, ``(n, A)`` frequencies, ``A`` at least 2."""
        if len(symbols):
            symbols = np.ascontiguousarray(symbols, np.int32)
            self._coder.encode(symbols, _FAMILY, np.ascontiguousarray(frequencies, np.float64))
            share = np.maximum(frequencies[np.arange(len(symbols)), symbols], 1) / frequencies.sum(axis=1)
            self.bits -= float(np.log2(share).sum())

    def uniform(self, values, size):
        """Write integers from 0 to ``size - 1``, all equally likely; ``size`` is at most 2^48."""
        values = np.atleast_1d(np.asarray(values, np.int64))
        if size > _DIGIT:
            self.uniform(values >> 16, ((size - 1) >> 16) + 1)
            values, size = values & (_DIGIT - 1), _DIGIT
        if size > 1 and values.size:
            self._coder.encode(values.astype(np.int32), models.Uniform(int(size)))
            self.bits += values.size * float(np.log2(size))

    def getvalue(self):
        """The bytes. Zeros at the end are left out: a `Reader` supplies them."""
        return self._coder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")


class Reader:
    """Reads what a `Writer` wrote.

    On damaged bytes the symbols are wrong but within their tables, or `ValueError` is raised; nothing is allocated
    beyond what the caller asks for.

    Args:
        data: the bytes of `Writer.getvalue`.
        most_work: entries of tables that may be used, `_CALL` for each call besides; None for any number. Symbols that
            are certain take no bits, so that a few bytes can ask for any number of them.
    """

    def __init__(self, data, most_work=None):
        self._left = most_work
        words = np.frombuffer(bytes(data) + b"\0" * (-len(data) % 4), ">u4").astype(np.uint32)
        self._coder = queue.RangeDecoder(words)

    def _decode(self, work, *arguments):
        if self._left is not None:
            self._left -= work + _CALL
            if self._left < 0:
                raise ValueError("Expected a stream as long as what is in it. Received: one that would take too long")
        try:
            return self._coder.decode(*arguments)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(f"Expected a stream of the entropy coder. Received: {error}") from error

    def symbols(self, count, frequencies):
        """Read ``count`` symbols that share the table ``(A,)``; int32 array ``(count,)``."""
        if len(frequencies) < 2 or not count:
            return np.zeros(count, np.int32)
        return self._decode(int(count) + len(frequencies), _categorical(frequencies), int(count))

    def rows(self, frequencies):
        """Read one symbol per row of the tables ``(n, A)``; int32 array ``(n,)``."""
        if not len(frequencies):
            return np.zeros(0, np.int32)
        return self._decode(frequencies.size, _FAMILY, np.ascontiguousarray(frequencies, np.float64))

    def uniform(self, count, size):
        """Read ``count`` integers from 0 to ``size - 1``; int64 array ``(count,)``."""
        if size > _DIGIT:
            high = self.uniform(count, ((size - 1) >> 16) + 1)
            return (high << 16) | self.uniform(count, _DIGIT)
        if size < 2 or not count:
            return np.zeros(count, np.int64)
        return self._decode(int(count), models.Uniform(int(size)), int(count)).astype(np.int64)

    def check_end(self):
        """Raise `ValueError` if there is more in the stream than was read."""
        if not self._coder.maybe_exhausted():
            raise ValueError("Expected the stream to end here. Received: more bytes")
