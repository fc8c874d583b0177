"""Canonical Huffman coding of integer arrays: Deep Compression's last stage.

`huffman_encode` makes one run of bytes of its own, table first:

==========  ========================================================================================================
bytes       what
==========  ========================================================================================================
1           ``shortest - 1``, of the lengths of the codes, bits
1           ``longest - shortest``
1 to 5      the smallest symbol ``s``, LEB128 of ``2 s`` for ``s >= 0``, of ``-2 s - 1`` below
1 to 3      the largest minus the smallest symbol, LEB128; if it is 0, nothing follows
any         the fields: ``w`` bits for each symbol from smallest to largest, together padded to whole bytes:
            ``length - shortest + 1``, or 0 for a symbol that has no code; ``w`` is the bit length of the largest field
the rest    the codes, one after the other, padded to whole bytes
==========  ========================================================================================================

Bits are filled from the highest of each byte on; padding is 0. Lengths are enough, for the code is canonical: ordered
by length, then by symbol, codes count upwards. An empty array is no bytes at all. How many values there are is not in
the bytes.
"""

import math

import numpy as np

from scc_tf.coding.gaps import to_gaps

__all__ = ["canonical_codes", "code_lengths", "huffman_bits", "huffman_decode", "huffman_encode"]

LONGEST = 32  # bits: the limit on code lengths in the bytes
_WIDEST = (1 << 16) - 1  # largest minus smallest symbol
_GAP_BITS = range(3, 9)
_BLOCK = 1 << 15  # bytes that are decoded at once


def code_lengths(counts, limit=LONGEST):
    """The lengths of the shortest prefix code for symbols that occur so often.

    The Kraft sum ``sum(2**-length)`` over the symbols that occur is 1, or 1/2 where only one does.

    Args:
        counts: int array ``(A,)``, not negative, with a sum below 2^53.
        limit: no code is longer than this, bits, from 1 to 32.

    Returns:
        int64 array ``(A,)``, bits; 0 where the count is 0, 1 where it is the only one. The sum of ``counts * lengths``
        is the least possible under the limit.

    Raises:
        ValueError: if a count is negative or not an integer, or there are more than ``2**limit`` symbols.

    Source: Huffman 1952, "A method for the construction of minimum-redundancy codes"; with the limit, Larmore &
        Hirschberg 1990, "A fast algorithm for optimal length-limited Huffman codes" (package-merge).

    Example:
        >>> code_lengths([5, 1, 0, 2, 9]).tolist()
        [2, 3, 0, 3, 1]
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or (counts.size and counts.dtype.kind not in "iu"):
        raise ValueError(f"Expected integer counts (A,). Received: shape={counts.shape}, dtype={counts.dtype}")
    counts = counts.astype(np.int64)
    if counts.size and (counts.min() < 0 or counts.sum(dtype=np.float64) >= 2.0**53):
        raise ValueError(f"Expected counts from 0, with a sum below 2**53. Received: {counts}")
    used = np.flatnonzero(counts)
    if not 1 <= limit <= LONGEST or used.size > 1 << limit:
        raise ValueError(f"Expected a limit of log2(symbols) to {LONGEST}. Received: {limit=}, symbols={used.size}")
    order = used[np.argsort(counts[used], kind="stable")]
    lengths = np.zeros(counts.size, np.int64)
    lengths[order] = _package_merge(counts[order], min(limit, used.size - 1)) if used.size > 1 else 1
    return lengths


def _package_merge(counts, limit):
    """Lengths of the codes of ascending counts ``(A,)``, ``A`` at least 2.

    Every symbol offers one coin of each value ``2^-1 … 2^-limit``, at the price of its count; the cheapest coins that
    are worth ``A - 1`` together are bought, and a symbol's length is how many of its coins are among them.
    """
    prices, single = counts, [np.ones(counts.size, bool)]
    for _ in range(limit - 1):
        pairs = prices[: prices.size // 2 * 2].reshape(-1, 2).sum(axis=1)
        merged = np.concatenate([counts, pairs])
        order = np.argsort(merged, kind="stable")
        prices = merged[order]
        single.append(order < counts.size)
    lengths, bought = np.zeros(counts.size, np.int64), 2 * counts.size - 2
    for coins in reversed(single):
        singles = int(coins[:bought].sum())
        lengths[:singles] += 1
        bought = 2 * (bought - singles)
    return lengths


def _starts(lengths):
    """The codes of ascending lengths, followed by zeros to `LONGEST` bits, int64."""
    room = np.int64(1) << (LONGEST - lengths)
    return np.cumsum(room) - room


def canonical_codes(lengths):
    """The codes that belong to lengths: ordered by length, then by symbol, they count upwards.

    Args:
        lengths: int array ``(A,)``, bits, from 0 (no code) to 32.

    Returns:
        int64 array ``(A,)``; a code is the lowest ``length`` bits. 0 where there is none.

    Raises:
        ValueError: if a length is out of range or the Kraft sum is above 1.

    Source: Schwartz & Kallick 1964, "Generating a canonical prefix encoding".

    Example:
        >>> [f"{code:0{length}b}" for code, length in zip(canonical_codes([2, 3, 3, 1]), [2, 3, 3, 1])]
        ['10', '110', '111', '0']
    """
    lengths = np.asarray(lengths, np.int64)
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= LONGEST:
        raise ValueError(f"Expected lengths from 0 to {LONGEST}. Received: from {lengths.min()} to {lengths.max()}")
    used = np.flatnonzero(lengths)
    if _kraft(lengths[used]) > 1 << LONGEST:
        raise ValueError(f"Expected lengths with a Kraft sum of at most 1. Received: lengths={lengths}")
    order = used[np.argsort(lengths[used], kind="stable")]
    codes = np.zeros(lengths.size, np.int64)
    codes[order] = _starts(lengths[order]) >> (LONGEST - lengths[order])
    return codes


def _kraft(lengths):
    """The Kraft sum in units of ``2**-LONGEST``."""
    return int((np.int64(1) << (LONGEST - lengths)).sum())


def huffman_encode(values):
    """Encode an integer array losslessly, with a table of its own.

    Args:
        values: int array of any shape, values within int32 and at most 65,535 apart.

    Returns:
        bytes, laid out as the module's docstring says.

    Raises:
        ValueError: if a value is out of range or not an integer.

    Source: Han, Mao & Dally 2016, "Deep Compression", section 4 (arXiv 1510.00149). The paper leaves the tables out
        of its sizes; here they are in the bytes.

    Example:
        >>> data = huffman_encode([[3, 3, 0], [3, 7, 3]])
        >>> len(data), huffman_decode(data, (2, 3)).tolist()
        (7, [[3, 3, 0], [3, 7, 3]])
    """
    return b"".join(_encoded(np.asarray(values)))


def _encoded(values):
    """``(table, codes)``, bytes."""
    if not values.size:
        return b"", b""
    if values.dtype.kind not in "iub":
        raise ValueError(f"Expected integers. Received: values of dtype {values.dtype}")
    low, span = int(values.min()), int(values.max()) - int(values.min())
    if span > _WIDEST or not -(1 << 31) <= low <= low + span < 1 << 31:
        raise ValueError(f"Expected values within int32, at most {_WIDEST} apart. Received: from {low} to {low + span}")
    ranks = values.ravel().astype(np.int64) - low
    lengths = code_lengths(np.bincount(ranks))
    shortest, longest = int(lengths[lengths > 0].min()), int(lengths.max())
    table = bytes([shortest - 1, longest - shortest]) + _leb128(2 * low if low >= 0 else -2 * low - 1) + _leb128(span)
    if not span:
        return table, b""
    fields = np.where(lengths, lengths - shortest + 1, 0)
    table += _packed(fields, np.full(span + 1, (longest - shortest + 1).bit_length()))
    return table, _packed(canonical_codes(lengths)[ranks], lengths[ranks])


def huffman_decode(data, shape):
    """Decode what `huffman_encode` made.

    Args:
        data: the bytes.
        shape: shape of the array; it is not in the bytes.

    Returns:
        int32 array of that shape.

    Raises:
        ValueError: if the table is damaged, or the codes end too early or too late for that shape. Damage that only
            makes other symbols of the same total length does not show: keep a checksum.

    Memory is bounded by ``shape`` and ``data``, whatever the bytes say.
    """
    count = math.prod(np.atleast_1d(shape).tolist())
    if not count:
        if len(data):
            raise ValueError(f"Expected no bytes for no values. Received: {len(data)} bytes")
        return np.zeros(shape, np.int32)
    symbols, lengths, place = _read_table(data)
    if symbols.size == 1:
        if place < len(data):
            raise ValueError(f"Expected {place} bytes. Received: {len(data)}")
        return np.full(shape, symbols[0], np.int32)
    order = np.argsort(lengths, kind="stable")
    payload = np.frombuffer(data, np.uint8)[place:]
    return _decoded(payload, symbols[order].astype(np.int32), lengths[order], count).reshape(shape)


def huffman_bits(indices, gap_bits=None):
    """What a kernel with shared weights takes as Deep Compression stores it: gaps and entries, Huffman coded.

    Args:
        indices: int array of any shape, 0 for a pruned weight, ``i`` from 1 on for the cluster.
        gap_bits: width of a gap's field, bits, from 1 to 16; None takes what is smallest, from 3 to 8.

    Returns:
        ``{"gap_bits": …, "entries": …, "weights": …, "indices": …, "tables": …}``: the width of a gap's field; the
        number of entries, fillers included; and the bits of the codes of the entries, of the codes of the gaps, and of
        both tables, each padded to whole bytes. Over the entries, these are the paper's "weight bits" and "index bits".

    Source: arXiv 1510.00149, tables 2 and 3.

    Example:
        >>> huffman_bits(np.array([0, 2, 0, 0, 1, 0]))
        {'gap_bits': 3, 'entries': 2, 'weights': 8, 'indices': 8, 'tables': 80}
    """
    trials = []
    for bits in _GAP_BITS if gap_bits is None else [gap_bits]:
        gaps, entries = to_gaps(indices, bits)
        streams = [_encoded(part) for part in (entries, gaps.astype(np.int64))]
        weights, positions = (8 * len(codes) for _, codes in streams)
        tables = sum(8 * len(table) for table, _ in streams)
        own = {"gap_bits": bits, "entries": gaps.size, "weights": weights, "indices": positions, "tables": tables}
        trials.append((weights + positions + tables, own))
    return min(trials, key=lambda trial: trial[0])[1]


def _leb128(number):
    """Seven bits to a byte, the lowest first; the highest bit says that more follow."""
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def _read_leb128(data, place):
    number = 0
    for k, byte in enumerate(data[place : place + 5]):
        number |= (byte & 127) << 7 * k
        if byte < 128:
            return number, place + k + 1
    raise ValueError("Expected an integer of at most 5 bytes. Received: another")


def _packed(codes, lengths):
    """The lowest ``lengths`` bits of each code, one after the other, as bytes."""
    ends = np.cumsum(lengths)
    bits = np.zeros(int(ends[-1]), np.uint8)
    for place in range(int(lengths.max())):  # of the bit in its code, from the last
        has = lengths > place
        bits[ends[has] - 1 - place] = codes[has] >> place & 1
    return np.packbits(bits).tobytes()


def _read_table(data):
    """The symbols in ascending order, the lengths of their codes, int64 ``(A,)`` each, and where the table ends."""
    folded, place = _read_leb128(data, 2)
    span, place = _read_leb128(data, place)
    low = -(folded + 1 >> 1) if folded & 1 else folded >> 1
    if span > _WIDEST or not -(1 << 31) <= low <= low + span < 1 << 31:
        raise ValueError(f"Expected symbols within int32, at most {_WIDEST} apart. Received: {low} and {span} more")
    if not span:
        return np.array([low]), np.ones(1, np.int64), place
    width = (data[1] + 1).bit_length()
    end = place + ((span + 1) * width + 7) // 8
    bits = np.unpackbits(np.frombuffer(data[place:end], np.uint8))
    if end > len(data) or bits[(span + 1) * width :].any():
        raise ValueError(f"Expected a table of {end} bytes. Received: another")
    fields = bits[: (span + 1) * width].reshape(span + 1, width) @ (1 << np.arange(width)[::-1])
    symbols = np.flatnonzero(fields)
    lengths = fields[symbols] + data[0]
    if lengths.max(initial=0) > LONGEST or _kraft(lengths) != 1 << LONGEST:
        raise ValueError("Expected a table with a Kraft sum of 1. Received: another sum")
    return symbols + low, lengths, end


def _decoded(payload, symbols, lengths, count):
    """Decode ``count`` codes: symbols and lengths in the order of the codes, the lengths ascending.

    For every bit of a block, the length of the code that would start there is looked up, all at once; what remains to
    be done one by one is to jump from code to code.
    """
    starts = _starts(lengths)
    by_length, first = np.unique(lengths, return_index=True)
    bounds, by_length = starts[first[1:]], by_length.astype(np.uint8)
    padded = np.concatenate([payload, np.zeros(4, np.uint8)])
    parts, found, place = [], 0, 0
    for block in range(0, payload.size, _BLOCK):
        windows = _windows(padded[block : block + _BLOCK + 4])
        steps = by_length[np.searchsorted(bounds, windows, side="right")].tobytes()
        places = []
        while place < windows.size:
            places.append(place)
            place += steps[place]
        if found + len(places) >= count:
            last = places[count - found - 1]
            parts.append(windows[places[: count - found]])
            _check_end(payload, 8 * block + last + steps[last])
            return symbols[np.searchsorted(starts, np.concatenate(parts), side="right") - 1]
        parts.append(windows[places])
        found, place = found + len(places), place - windows.size
    raise ValueError(f"Expected {count} codes. Received: {found}")


def _windows(data):
    """The `LONGEST` bits from each bit of ``data`` on, but for its last four bytes; int64."""
    data = data.astype(np.int64)
    size = data.size - 4
    five = sum(data[i : i + size] << 8 * (4 - i) for i in range(5))
    return (five[:, None] >> np.arange(8, 0, -1) & (1 << LONGEST) - 1).ravel()


def _check_end(payload, end):
    bits = 8 * payload.size
    if not bits - 8 < end <= bits or int(payload[-1]) & (1 << bits - end) - 1:
        raise ValueError(f"Expected codes up to the last of {payload.size} bytes, then zeros. Received: {end=}")
