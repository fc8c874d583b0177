"""Entropy coding of one large integer array, with contexts, at tens of millions of symbols per second.

An integer becomes a token: itself up to 255 in magnitude, beyond that its sign and bit length, with the remaining
bits as they are. The tokens are coded with a table of frequencies per context, in the smaller of two ways:

Adaptive: in blocks that grow by half of what is already known. A block's tables are the counts of the blocks before
it, so no table is stored, and a block is coded with one call per context.

Stored: the tables are in the stream, each frequency as a power of ``2^(1/4)``.
"""

import dataclasses
import math

import numpy as np

from scc_tf.coding.numbers import read_count, read_integers, write_count, write_integers
from scc_tf.coding.stream import Reader, Writer

__all__ = ["decode", "encode", "entropy_bits", "read_symbols", "write_symbols"]

_EXACT = 255  # largest magnitude that is a token of its own
_FIRST_BLOCK = 16
_LARGEST_TABLES = 1 << 22  # contexts times tokens: 32 MiB of counts
_WORTH_A_TABLE = 64  # symbols per context, at least on average
_LEVELS = np.array([0] + [math.isqrt(math.isqrt(1 << level)) for level in range(49)], np.int64)  # 1 to 4096


def entropy_bits(codes):
    """Zero-order entropy of an integer array of any shape, bits in total: what no code without contexts goes below.

    Example:
        >>> entropy_bits(np.array([0, 0, 1, 1]))
        4.0
    """
    counts = np.unique(codes, return_counts=True)[1]
    return float(np.sum(counts * np.log2(codes.size / counts))) if codes.size else 0.0


def encode(values, contexts=None):
    """Encode an integer array losslessly.

    Args:
        values: int array of any shape, values within int32.
        contexts: int array of the shape of ``values``, from 0 to 65,535: symbols of one context share their
            frequencies. Anything that the decoder knows as well, such as the bit depth of the channel.

    Returns:
        bytes: one stream of a `scc_tf.coding.Writer`.

    Raises:
        ValueError: if a value or context is out of range or not an integer, or the shapes differ.

    Source: Howard & Vitter 1991, "Analysis of arithmetic coding for data compression" (adaptive against stored
        frequencies).

    Example:
        >>> data = encode(np.array([[0, -1], [0, 70000]]))
        >>> decode(data, (2, 2)).tolist()
        [[0, -1], [0, 70000]]
    """
    writer = Writer()
    write_symbols(writer, values, contexts)
    return writer.getvalue()


def decode(data, shape, contexts=None):
    """Decode what `encode` made.

    Args:
        data: the bytes.
        shape: shape of the array; it is not in the bytes.
        contexts: as for `encode`.

    Returns:
        int32 array of that shape.

    Raises:
        ValueError: if the bytes are too long for that shape or hold values outside int32, or the contexts have
            another shape. Damage that changes only values does not show: keep a checksum.

    Memory is bounded by ``shape``, whatever the bytes say.
    """
    reader = Reader(data)
    values = read_symbols(reader, math.prod(np.atleast_1d(shape).tolist()), contexts)
    reader.check_end()
    return values.reshape(shape)


def _checked_integers(name, values, low, high):
    values = np.asarray(values)
    if values.dtype.kind not in "iub":
        raise ValueError(f"Expected {name} to be integers. Received: {name} of dtype {values.dtype}")
    if values.size and (values.min() < low or values.max() > high):
        raise ValueError(f"Expected {name} from {low} to {high}. Received: from {values.min()} to {values.max()}")
    return (values.astype(np.uint8) if values.dtype.kind == "b" else values).ravel()


def _checked_contexts(contexts, size):
    if contexts is None:
        return None
    flat = _checked_integers("contexts", contexts, 0, 65535)
    if flat.size != size:
        raise ValueError(f"Expected one context per value. Received: {flat.size} contexts for {size} values")
    return flat.astype(np.uint16)


def _tokens_of(values):
    """Tokens (int32), and the bit lengths and magnitudes of the values that are no token of their own."""
    magnitudes = np.abs(values.astype(np.int64))
    large = np.flatnonzero(magnitudes > _EXACT)
    lengths = np.frexp(magnitudes[large].astype(np.float64))[1].astype(np.int64)  # exact: int32 fits float64
    tokens = values.astype(np.int32)
    tokens[large] = np.sign(values[large]) * (_EXACT + lengths - 8)
    return tokens, lengths, magnitudes[large]


@dataclasses.dataclass
class _Blocks:
    """The order in which symbols are coded: block by block, and within a block context by context.

    Attributes:
        contexts: uint16 ``(n,)`` from 0 to ``tables - 1``, or None.
        size: ``n``.
        tables: number of contexts.
        tokens: ``A``, entries per table.
    """

    contexts: np.ndarray | None
    size: int
    tables: int
    tokens: int

    @classmethod
    def of(cls, contexts, size, tokens):
        """Number the contexts that occur, and merge neighbours where the tables would be too many."""
        if contexts is None or not size:
            return cls(None, size, 1, tokens)
        used = np.bincount(contexts, minlength=65536) > 0
        tables = int(used.sum())
        number = np.cumsum(used) - 1
        most = max(min(_LARGEST_TABLES // tokens, size // _WORTH_A_TABLE), 1)
        if tables > most:
            number, tables = number * most // tables, most
        return cls(number.astype(np.uint8 if tables <= 256 else np.uint16)[contexts], size, tables, tokens)

    def __iter__(self):
        """Yield ``(start, order, lengths)``: the places of a block sorted by context, and symbols per context."""
        start = 0
        while start < self.size:
            stop = min(start + max(_FIRST_BLOCK, start // 2), self.size)
            if self.contexts is None:
                yield start, slice(start, stop), np.array([stop - start])
            else:
                block = self.contexts[start:stop]
                yield start, start + np.argsort(block, kind="stable"), np.bincount(block, minlength=self.tables)
            start = stop

    def histogram(self, symbols, start, stop):
        """Counts ``(tables, A)`` of the symbols from ``start`` to ``stop``."""
        keys = symbols[start:stop].astype(np.int64)
        if self.contexts is not None:
            keys += self.contexts[start:stop].astype(np.int64) * self.tokens
        return np.bincount(keys, minlength=self.tables * self.tokens).reshape(self.tables, self.tokens)


def _adaptive_tables(counts):
    """Frequencies ``(K, A)`` from the counts so far: the context's own, and 8 symbols' worth of all contexts'."""
    total = counts.sum(axis=0)
    return 32 * counts + 256 * total // max(int(total.sum()), 1) + 1


def _bits(counts, frequencies):
    """Cost of ``counts`` ``(K, A)`` symbols under tables of frequencies, bits."""
    shares = np.maximum(frequencies, 1) / np.maximum(frequencies.sum(axis=1, keepdims=True), 1)
    return float(-(counts * np.log2(shares)).sum())


def _levels_of(counts):
    """The stored form of tables ``(K, A)``: levels from 0 (never) to 49."""
    scaled = counts * 4096 / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    levels = 1 + np.rint(4 * np.log2(np.maximum(scaled, 1))).astype(np.int64)
    return np.where(counts > 0, levels, 0)


def write_symbols(writer, values, contexts=None):
    """Write an integer array into a stream; arguments and errors as for `encode`."""
    flat = _checked_integers("values", values, -(1 << 31), (1 << 31) - 1)
    contexts = _checked_contexts(contexts, flat.size)
    if not flat.size:
        return
    tokens, lengths, magnitudes = _tokens_of(flat)
    low = int(tokens.min())
    symbols = tokens - low
    write_count(writer, abs(low))
    writer.uniform(int(low < 0), 2)
    alphabet = int(symbols.max()) + 1
    writer.uniform(alphabet, 1024)
    if alphabet > 1:
        _write_tokens(writer, symbols, _Blocks.of(contexts, flat.size, alphabet))
    for length in np.unique(lengths):
        chosen = magnitudes[lengths == length] - (1 << int(length) - 1)
        writer.uniform(chosen, 1 << int(length) - 1)


def _write_tokens(writer, symbols, blocks):
    counts = np.zeros((blocks.tables, blocks.tokens), np.int64)
    adaptive_bits, steps = 0.0, []
    for start, order, lengths in blocks:
        steps.append((order, lengths))
        new = blocks.histogram(symbols, start, start + int(lengths.sum()))
        adaptive_bits += _bits(new, _adaptive_tables(counts))
        counts += new
    levels = _levels_of(counts)
    trial = Writer()
    write_integers(trial, levels.ravel())
    stored = trial.bits + _bits(counts, _LEVELS[levels]) < adaptive_bits
    writer.uniform(int(stored), 2)
    if stored:
        write_integers(writer, levels.ravel())
    tables, counts = _LEVELS[levels], np.zeros_like(counts)
    start = 0
    for order, lengths in steps:
        if not stored:
            tables = _adaptive_tables(counts)
        stop, done = start + int(lengths.sum()), 0
        ordered = symbols[order]
        for context in np.flatnonzero(lengths):
            count = int(lengths[context])
            writer.symbols(ordered[done : done + count], tables[context])
            done += count
        if not stored:
            counts += blocks.histogram(symbols, start, stop)
        start = stop


def read_symbols(reader, count, contexts=None):
    """Read an int32 array ``(count,)`` from a stream; contexts and errors as for `decode`."""
    contexts = _checked_contexts(contexts, count)
    if not count:
        return np.zeros(0, np.int32)
    low = read_count(reader)
    low = -low if reader.uniform(1, 2)[0] else low
    alphabet = int(reader.uniform(1, 1024)[0])
    largest = _EXACT + 24  # the token of -2**31
    if not (-largest <= low and low + alphabet - 1 <= largest and alphabet):
        raise ValueError(f"Expected tokens within {largest}. Received: {alphabet} from {low}")
    symbols = np.zeros(count, np.int32)
    if alphabet > 1:
        _read_tokens(reader, symbols, _Blocks.of(contexts, count, alphabet))
    return _values_of(reader, symbols + np.int32(low))


def _read_tokens(reader, symbols, blocks):
    stored = bool(reader.uniform(1, 2)[0])
    counts = tables = np.zeros((blocks.tables, blocks.tokens), np.int64)
    if stored:
        levels = read_integers(reader, counts.size).reshape(counts.shape)
        if not 0 <= levels.min() <= levels.max() < len(_LEVELS):
            raise ValueError(f"Expected levels below {len(_LEVELS)}. Received: {levels.min()} to {levels.max()}")
        tables = _LEVELS[levels]
    for start, order, lengths in blocks:
        if not stored:
            tables = _adaptive_tables(counts)
        parts = [reader.symbols(int(lengths[c]), tables[c]) for c in np.flatnonzero(lengths)]
        symbols[order] = np.concatenate(parts)
        if not stored:
            counts = counts + blocks.histogram(symbols, start, start + int(lengths.sum()))


def _values_of(reader, tokens):
    magnitudes = np.abs(tokens)
    if magnitudes.max() <= _EXACT:
        return tokens
    large = np.flatnonzero(magnitudes > _EXACT)
    lengths = magnitudes[large].astype(np.int64) - _EXACT + 8
    values = tokens.astype(np.int64)
    for length in np.unique(lengths):
        chosen = large[lengths == length]
        rest = reader.uniform(chosen.size, 1 << int(length) - 1) + (1 << int(length) - 1)
        values[chosen] = np.sign(tokens[chosen]) * rest
    if values.max() > (1 << 31) - 1 or values.min() < -(1 << 31):
        raise ValueError(f"Expected int32 values. Received: from {values.min()} to {values.max()}")
    return values.astype(np.int32)
