"""Sparse arrays as gaps: how many zeros stand before each stored entry, in a field of few bits.

A gap that its field cannot hold is bridged with filler zeros: entries that are stored although they are 0. A filler
has the largest gap ``2^bits - 1``, so it stands for ``2^bits`` zeros, itself included. Zeros after the last entry are
not stored: the shape tells of them.
"""

import math

import numpy as np

__all__ = ["from_gaps", "to_gaps"]


def to_gaps(array, bits):
    """Split an array into its entries and the gaps before them, in row-major order.

    Args:
        array: int, bool or float array of any shape. For floats, -0.0 counts as zero.
        bits: width of a gap's field, bits, from 1 to 32. Deep Compression takes 8 for convolutions and 5 for dense
            layers in its text, 5 and 4 in its tables.

    Returns:
        ``(gaps, entries)``, both ``(m,)``: gaps as uint32 from 0 to ``2**bits - 1``; entries in the dtype of ``array``,
        0 for fillers. An array of zeros has none; a dense one has as many as it has elements, and gaps of 0.

    Raises:
        ValueError: if ``bits`` is out of range.

    Source: Han, Mao & Dally 2016, "Deep Compression", section 2 and figure 2 (arXiv 1510.00149). The figure writes the
        difference of two positions, which is the gap plus 1.

    Example:
        >>> row = np.zeros(16, int)
        >>> row[[1, 4, 15]] = 34, 9, 17  # the figure: three bits, and a filler at position 12
        >>> gaps, entries = to_gaps(row, bits=3)
        >>> gaps.tolist(), entries.tolist()
        ([1, 2, 7, 2], [34, 9, 0, 17])
    """
    if not 1 <= bits <= 32:
        raise ValueError(f"Expected fields of 1 to 32 bits. Received: {bits=}")
    flat = np.asarray(array).ravel()
    places = np.flatnonzero(flat)
    zeros = np.diff(places, prepend=-1) - 1
    own = np.cumsum((zeros >> bits) + 1) - 1  # where each nonzero stands behind its fillers
    size = int(own[-1]) + 1 if own.size else 0
    gaps, entries = np.full(size, (1 << bits) - 1, np.uint32), np.zeros(size, flat.dtype)
    gaps[own], entries[own] = zeros & (1 << bits) - 1, flat[places]
    return gaps, entries


def from_gaps(gaps, entries, shape):
    """The array that `to_gaps` took apart.

    Args:
        gaps: int array ``(m,)``, not negative.
        entries: array ``(m,)``.
        shape: shape of the array.

    Returns:
        An array of that shape, in the dtype of ``entries``.

    Raises:
        ValueError: if there is not one gap per entry, or an entry lies outside the shape, as after damage.

    Example:
        >>> from_gaps([1, 2, 7, 2], [34, 9, 0, 17], (4, 4)).tolist()
        [[0, 34, 0, 0], [9, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 17]]
    """
    gaps, entries = np.asarray(gaps), np.asarray(entries)
    if gaps.ndim != 1 or gaps.shape != entries.shape:
        raise ValueError(f"Expected gaps and entries (m,). Received: shapes {gaps.shape} and {entries.shape}")
    size = math.prod(np.atleast_1d(shape).tolist())
    if gaps.size and (gaps.dtype.kind not in "iu" or gaps.min() < 0 or gaps.max() >= max(size, 1)):
        raise ValueError(f"Expected integer gaps from 0, below {size}. Received: from {gaps.min()} to {gaps.max()}")
    places = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if gaps.size and places[-1] >= size:
        raise ValueError(f"Expected entries within the {size} of shape {shape}. Received: one at {places[-1]}")
    flat = np.zeros(size, entries.dtype)
    flat[places] = entries
    return flat.reshape(shape)
