"""Canonical Huffman coding of integer arrays: Deep Compression's last stage.

`huffman_encode` makes one run of bytes of its own, table first:

==========  ========================================================================================================
bytes       what
==========  ========================================================================================================
1           ``32 * kind + shortest - 1``; kind 0: one symbol only, 1: table of a range, 2: table of listed symbols
1           ``longest - shortest``, from 0 to 31; absent for kind 0
1 to 5      the smallest symbol ``s``, LEB128 of ``2 s`` for ``s >= 0``, of ``-2 s - 1`` below; kind 0 ends here
1 to 5      kind 1: the largest minus the smallest symbol; kind 2: the number of symbols; LEB128
any         kind 2: for every symbol but the first, its distance from the one before, minus 1; LEB128
any         the fields: ``w`` bits for each symbol from smallest to largest, together padded to whole bytes. Kind 1:
            ``length - shortest + 1``, or 0 for a symbol that has no code. Kind 2: ``length - shortest``
the rest    the codes, one after the other, padded to whole bytes
==========  ========================================================================================================

``w`` is the bit length of the largest possible field. Bits are filled from the highest of each byte on; padding is 0.
Lengths are enough, for the code is canonical: ordered by length, then by symbol, codes count upwards. An empty array
is no bytes at all. The encoder takes the shorter of the kinds 1 and 2. How many values there are is not in the bytes.
"""

import math

import numpy as np

__all__ = ["LONGEST", "canonical_codes", "code_lengths", "huffman_decode", "huffman_encode", "huffman_table_bytes"]

LONGEST = 32  # bits: the limit on code lengths in the bytes
_ONE, _RANGE, _LIST = range(3)
_INT32 = (-(1 << 31), (1 << 31) - 1)
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
        values: int array of any shape, values within int32.

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
    values = np.asarray(values)
    if not values.size:
        return b""
    if values.dtype.kind not in "iub":
        raise ValueError(f"Expected integers. Received: values of dtype {values.dtype}")
    if values.min() < _INT32[0] or values.max() > _INT32[1]:
        raise ValueError(f"Expected values within int32. Received: from {values.min()} to {values.max()}")
    symbols, ranks, counts = np.unique(values.ravel().astype(np.int64), return_inverse=True, return_counts=True)
    if symbols.size == 1:
        return bytes([32 * _ONE]) + _leb128(_zigzag(int(symbols[0])))
    lengths = code_lengths(counts)
    return _table(symbols, lengths) + _packed(canonical_codes(lengths)[ranks], lengths[ranks])


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
    cursor = _Cursor(data)
    symbols, lengths = _read_table(cursor)
    if symbols.size == 1:
        if cursor.place < len(data):
            raise ValueError(f"Expected {cursor.place} bytes. Received: {len(data)}")
        return np.full(shape, symbols[0], np.int32)
    order = np.argsort(lengths, kind="stable")
    payload = np.frombuffer(data, np.uint8)[cursor.place :]
    return _decoded(payload, symbols[order].astype(np.int32), lengths[order], count).reshape(shape)


def huffman_table_bytes(data):
    """How many of the bytes that `huffman_encode` made are the table.

    Args:
        data: the bytes.

    Returns:
        int, bytes; the other ``len(data)`` minus these are codes.

    Raises:
        ValueError: if the table is damaged.

    Example:
        >>> huffman_table_bytes(huffman_encode([3, 3, 0, 3, 7, 3]))
        6
    """
    if not len(data):
        return 0
    cursor = _Cursor(data)
    _read_table(cursor)
    return cursor.place


def _zigzag(number):
    return 2 * number if number >= 0 else -2 * number - 1


def _leb128(number):
    """Seven bits to a byte, the lowest first; the highest bit says that more follow."""
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def _packed(codes, lengths):
    """The lowest ``lengths`` bits of each code, one after the other, as bytes."""
    ends = np.cumsum(lengths)
    bits = np.zeros(int(ends[-1]), np.uint8)
    for place in range(int(lengths.max())):  # of the bit in its code, from the last
        has = lengths > place
        bits[ends[has] - 1 - place] = codes[has] >> place & 1
    return np.packbits(bits).tobytes()


def _table(symbols, lengths):
    low, span = int(symbols[0]), int(symbols[-1] - symbols[0])
    shortest, longest = int(lengths.min()), int(lengths.max())
    width = (longest - shortest).bit_length()
    listed = b"".join(_leb128(gap) for gap in (np.diff(symbols) - 1).tolist())
    listed = _leb128(symbols.size) + listed
    if width:
        listed += _packed(lengths - shortest, np.full(symbols.size, width))
    kind, rest = _LIST, listed
    width = (longest - shortest + 1).bit_length()
    if (span + 1) * width // 8 < len(listed):
        fields = np.zeros(span + 1, np.int64)
        fields[symbols - low] = lengths - shortest + 1
        ranged = _leb128(span) + _packed(fields, np.full(span + 1, width))
        kind, rest = (_RANGE, ranged) if len(ranged) <= len(listed) else (kind, rest)
    return bytes([32 * kind + shortest - 1, longest - shortest]) + _leb128(_zigzag(low)) + rest


class _Cursor:
    """Reads a table from bytes, and never beyond their end."""

    def __init__(self, data):
        self.data, self.place = data, 0

    def take(self, count):
        if count > len(self.data) - self.place:
            raise ValueError(f"Expected {count} more bytes of a table. Received: {len(self.data) - self.place}")
        self.place += count
        return self.data[self.place - count : self.place]

    def leb128(self):
        number = shift = 0
        while shift < 35:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
        raise ValueError("Expected an integer of at most 5 bytes. Received: a longer one")

    def fields(self, count, width):
        """``count`` integers of ``width`` bits, int64."""
        bits = np.unpackbits(np.frombuffer(self.take((count * width + 7) // 8), np.uint8))
        if bits[count * width :].any():
            raise ValueError("Expected padding of zeros after a table. Received: other bits")
        return bits[: count * width].reshape(count, width) @ (1 << np.arange(width)[::-1])


def _read_table(cursor):
    """The symbols in ascending order and the lengths of their codes, int64 ``(A,)`` each."""
    kind, shortest = divmod(cursor.take(1)[0], 32)
    if kind not in (_ONE, _RANGE, _LIST) or (kind == _ONE and shortest):
        raise ValueError(f"Expected a Huffman table. Received: kind={kind}")
    spread = 0 if kind == _ONE else cursor.take(1)[0]
    folded = cursor.leb128()
    low = -(folded + 1 >> 1) if folded & 1 else folded >> 1
    read = {_ONE: _read_one, _RANGE: _read_range, _LIST: _read_list}[kind]
    symbols, above = read(cursor, spread)
    symbols, lengths = symbols + low, above + shortest + 1
    if not _INT32[0] <= low <= int(symbols.max(initial=low)) <= _INT32[1]:
        raise ValueError(f"Expected symbols within int32. Received: from {low}")
    if kind != _ONE and (lengths.max(initial=0) > LONGEST or _kraft(lengths) != 1 << LONGEST):
        raise ValueError("Expected a table with a Kraft sum of 1. Received: another sum")
    return symbols, lengths


def _read_one(_cursor, _spread):
    return np.zeros(1, np.int64), np.zeros(1, np.int64)


def _read_range(cursor, spread):
    fields = cursor.fields(cursor.leb128() + 1, (spread + 1).bit_length())
    symbols = np.flatnonzero(fields)
    return symbols, fields[symbols] - 1


def _read_list(cursor, spread):
    count = cursor.leb128()
    if count > len(cursor.data):  # every symbol takes a byte
        raise ValueError(f"Expected a table within {len(cursor.data)} bytes. Received: {count} symbols")
    gaps = [cursor.leb128() for _ in range(count - 1)]
    symbols = np.cumsum([0, *(gap + 1 for gap in gaps)])
    return symbols, cursor.fields(symbols.size, spread.bit_length())


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
