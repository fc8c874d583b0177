"""Sparse kernels of small integers, channel by channel: which entries are not zero, and their values.

Most of a pruned kernel is the positions of what is left. They are neither random nor independent: all channels
read about the same inputs, some channels read many and others few, and a channel reads neighbouring pixels, with
weights of one sign. So every entry has a context of three numbers that the reader knows as well:

* how likely it is from its channel's density and from how many of the channels before read this input and those
  around it, a class per factor of 2;
* how many of its neighbours in the same channel are not zero, of those that are known;
* how many are known: a channel is taken in four steps, its positions ``(2i, 2j)``, ``(2i + 1, 2j + 1)``,
  ``(2i, 2j + 1)`` and ``(2i + 1, 2j)``.

The value of an entry that is not zero has its neighbours' deviation from the median as its context. Frequencies are
counts per context, updated after every step, and all arithmetic is that of integers.

In the stream: the side of the image if the kernel may read a flattened one, which channels are not empty, the
density of each as a power of ``2^(1/2)``, the median, and then per channel and step the flags and the values.
"""

import itertools
import math

import numpy as np

from scc_tf.coding.numbers import read_flags, read_integers, write_flags, write_integers
from scc_tf.coding.plans import SIDES, check_side, likely_sides, may_be_flat, middle
from scc_tf.coding.stream import Reader, Writer

__all__ = ["read_pruned", "write_pruned"]

_STEPS = ((0, 0), (1, 1), (0, 1), (1, 0))
_AROUND = [(y, x) for y, x in itertools.product((-1, 0, 1), repeat=2) if y or x]
_LIKELY, _NEAR, _TILTED = 16, 8, 2  # classes: from 0, from 0, to either side
_PRIOR = 16  # what a channel before counts, where no channel counts 1
_FRACTION = 13
_LARGEST_TABLES = 1 << 18  # entries that are made at once
_MOST_VALUES = 1 << 10  # more are written without frequencies
_SAMPLE = 32  # channels that the side of the image is chosen on
_LEVELS = 50  # of a channel with less than 2**25 entries


class _Frequencies:
    """Counts per context, which learn from what they coded; one method for both directions.

    Args:
        start: int array ``(contexts, alphabet)``, positive: what the counts are before.
        unit: what a symbol counts.
    """

    def __init__(self, start, unit):
        self.counts, self.unit, self.bits = start.astype(np.int64), unit, 0.0

    def code(self, coder, contexts, symbols=None):
        """Write symbols ``(n,)``, or read them if there are none; returns them."""
        some = max(_LARGEST_TABLES // self.counts.shape[1], 1)
        parts = [
            self._code(coder, contexts[i : i + some], symbols if symbols is None else symbols[i : i + some])
            for i in range(0, contexts.size, some)
        ]
        return np.concatenate([*parts, np.zeros(0, np.int64)])

    def _code(self, coder, contexts, symbols):
        tables = self.counts[contexts]
        if symbols is None:
            symbols = coder.rows(tables)
        else:
            before = coder.bits
            coder.rows(symbols, tables)
            self.bits += coder.bits - before
        new = np.bincount(contexts * self.counts.shape[1] + symbols, minlength=self.counts.size)
        self.counts += self.unit * new.reshape(self.counts.shape)
        return symbols

    @classmethod
    def of_flags(cls):
        """For flags: every context starts as 4 symbols of its class's own probability."""
        likely = np.minimum(3 << np.arange(_LIKELY) >> 2, 1 << _FRACTION - 1)
        likely = np.repeat(np.maximum(likely, 1), _NEAR * len(_STEPS))
        return cls(4 * np.stack([(1 << _FRACTION) - likely, likely], axis=-1), 1 << _FRACTION)

    @classmethod
    def of_values(cls, values):
        """For values: every one starts as a quarter of a symbol."""
        return cls(np.ones((2 * _TILTED + 1, values)), 4)


def _around(padded, row=0, column=0, step=1):
    """Twice the sum of the neighbours above, below, left and right, and the sum of the four in the corners.

    Args:
        padded: int array ``(…, height + 2, width + 2, inputs)``.
        row: the first position's.
        column: the first position's.
        step: from one position to the next.
    """
    height, width = padded.shape[-3] - 1, padded.shape[-2] - 1
    total = 0
    for y, x in _AROUND:
        part = padded[..., 1 + row + y : height + y : step, 1 + column + x : width + x : step, :]
        total = total + (2 - abs(y * x)) * part
    return total


def _likelihoods(seen, level):
    """Class of each entry ``(height, width, inputs)`` of a channel: log2 of its expected value."""
    share = 4 * seen[1:-1, 1:-1] + _around(seen)
    count = math.isqrt(1 << level + 8)  # 16 times the entries that are not zero
    expected = (share * count << _FRACTION - 4) // int(share.sum())
    return np.clip(np.frexp(expected.astype(np.float64))[1], 0, _LIKELY - 1).astype(np.int64)  # exact: below 2**53


def _code(coder, kernel, levels, values, median):
    """Write a kernel, or fill it by reading; returns the bits that flags and values took if it was written.

    Args:
        coder: `Writer` or `Reader`.
        kernel: int64 array ``(height, width, inputs, channels)``; for a reader, zeros.
        levels: int array ``(channels,)``: log2 of the count of a channel in units of 1/2; -1 if it is empty.
        values: largest value.
        median: of those that are not 0.
    """
    reading = isinstance(coder, Reader)
    height, width, inputs, _ = kernel.shape
    flags, amounts = _Frequencies.of_flags(), _Frequencies.of_values(min(values, _MOST_VALUES))
    seen = np.zeros((height + 2, width + 2, inputs), np.int64)
    seen[1:-1, 1:-1] = 1
    for channel in np.flatnonzero(levels >= 0):
        likely = _likelihoods(seen, int(levels[channel]))
        known = np.zeros((2, *seen.shape), np.int64)  # is it not zero, and how far from the median
        for number, (row, column) in enumerate(_STEPS):
            part = kernel[row::2, column::2, :, channel]
            if not part.size:
                continue
            near, tilt = _around(known, row, column, 2)
            contexts = (likely[row::2, column::2] * _NEAR + np.minimum(near, _NEAR - 1)) * len(_STEPS) + number
            nonzero = flags.code(coder, contexts.ravel(), None if reading else (part != 0).astype(np.int64).ravel())
            chosen = nonzero.reshape(part.shape) > 0
            if 1 < values <= _MOST_VALUES:
                tilt = np.clip((16 * tilt[chosen] + values) // (2 * values), -_TILTED, _TILTED) + _TILTED
                part[chosen] = amounts.code(coder, tilt, None if reading else part[chosen] - 1) + 1
            elif reading:
                part[chosen] = 1
            known[0, 1 + row : -1 : 2, 1 + column : -1 : 2] = chosen
            known[1, 1 + row : -1 : 2, 1 + column : -1 : 2] = np.where(chosen, part - median, 0)
        seen[1:-1, 1:-1] += _PRIOR * (kernel[..., channel] != 0)
    return flags.bits, amounts.bits


def _image(shape, side):
    height, width, inputs, channels = shape
    return height * side, width * side, inputs // side**2, channels


def _write(writer, kernel, values):
    """Write all but the side; returns the bits of the values."""
    counts = np.count_nonzero(kernel, axis=(0, 1, 2))
    live = counts > 0
    levels = np.where(live, np.rint(2 * np.log2(np.maximum(counts, 1))), -1).astype(np.int64)
    write_flags(writer, live)
    write_integers(writer, levels[live])
    nonzero = kernel[kernel != 0]
    median = middle(nonzero) if nonzero.size else 0
    writer.uniform(median, values + 1)
    _, bits = _code(writer, kernel, levels, values, median)
    if values > _MOST_VALUES:
        before = writer.bits
        writer.uniform(nonzero - 1, values)
        bits = writer.bits - before
    return bits


def _side(kernel, values):
    """The side of the image that the kernel reads, if it is one: what costs less on some of its channels."""
    live = np.flatnonzero(kernel.any(axis=(0, 1, 2)))
    some = kernel[..., live[:: max(live.size // _SAMPLE, 1)]]
    costs = {}
    for side in likely_sides(some != 0) if live.size else [1]:
        trial = Writer()
        _write(trial, some.reshape(_image(some.shape, side)), values)
        costs[side] = trial.bits
    return min(costs, key=costs.get)


def write_pruned(writer, kernel, values):
    """Write a sparse kernel of small integers.

    Args:
        writer: `scc_tf.coding.Writer`.
        kernel: int array ``(height, width, inputs, channels)``, from 0 to ``values``.
        values: largest value that there may be, at least 1.

    Returns:
        float: how much of it the values are, bits; the rest is positions.

    Example:
        >>> from scc_tf.coding import Reader, Writer
        >>> writer, kernel = Writer(), np.array([0, 2, 0, 0, 1, 0]).reshape(1, 1, 3, 2)
        >>> _ = write_pruned(writer, kernel, 2)
        >>> read_pruned(Reader(writer.getvalue()), (1, 1, 3, 2), 2).ravel().tolist()
        [0, 2, 0, 0, 1, 0]
    """
    kernel = np.asarray(kernel, np.int64)
    side = 1
    if may_be_flat(kernel.shape):
        side = _side(kernel, values)
        writer.uniform(side, SIDES)
    return _write(writer, kernel.reshape(_image(kernel.shape, side)), values)


def read_pruned(reader, shape, values):
    """Read what `write_pruned` wrote.

    Args:
        reader: `scc_tf.coding.Reader`.
        shape: shape of the kernel.
        values: as for `write_pruned`.

    Returns:
        int32 array of that shape, from 0 to ``values`` whatever the stream holds.

    Raises:
        ValueError: if the stream is damaged.
    """
    side = 1
    if may_be_flat(shape):
        side = int(reader.uniform(1, SIDES)[0])
        check_side(side, shape[2])
    kernel = np.zeros(_image(shape, side), np.int64)
    levels = np.full(shape[3], -1)
    live = read_flags(reader, shape[3])
    levels[live] = read_integers(reader, int(live.sum()))
    if not -1 <= levels.min(initial=0) <= levels.max(initial=0) < _LEVELS:
        raise ValueError(f"Expected densities below {_LEVELS}. Received: from {levels.min()} to {levels.max()}")
    median = int(reader.uniform(1, values + 1)[0])
    _code(reader, kernel, levels, values, median)
    if values > _MOST_VALUES:
        kernel[kernel != 0] = reader.uniform(np.count_nonzero(kernel), values) + 1
    return kernel.reshape(shape).astype(np.int32)
