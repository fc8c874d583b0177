"""The frame of a packed file: what it is, whether it is whole, and where its parts are.

=======  =====================================================================
bytes    content
=======  =====================================================================
0-2      ``b"SCC"``
3        version of the format: 3, or 1, or 2 with weight-sharing or masked layers;
         4 with extras
4-7      CRC-32 of all other bytes, little-endian
=======  =====================================================================

Then in version 3:

=======  =====================================================================
8-       architecture and tensors in one, see `scc_tf.export.packed.mixed`
=======  =====================================================================

In versions 1 and 2:

=======  =====================================================================
8-       length of the architecture, LEB128 (7 bits per byte, lowest first)
then     the architecture, see `scc_tf.export.packed.architecture`
to end   the tensors, see `scc_tf.export.packed.tensors`
=======  =====================================================================

Version 4 is one of the others with extras before it:

=======  =====================================================================
8-       length of the extras, LEB128
then     the extras, see `scc_tf.export.packed.extras`
1 byte   1, 2 or 3
to end   what stands in that version from byte 8 on
=======  =====================================================================
"""

import zlib

__all__ = ["MIXED", "PLAIN", "SPARSE", "VERSIONS", "frame", "split_extras", "unframe", "with_extras"]

VERSIONS = (1, 2, 3, 4)
PLAIN, SPARSE, MIXED, EXTENDED = VERSIONS
_MAGIC = b"SCC"
_PREFIX = 8
_LENGTH_BYTES = 5


def frame(architecture, tensors, version=PLAIN):
    """Put the two parts, bytes, into one file's content, bytes; in version 3 ``architecture`` is empty."""
    length = b"" if version == MIXED else _leb128(len(architecture))
    return _whole(version, length + architecture + tensors)


def _whole(version, rest):
    start = _MAGIC + bytes([version])
    return start + _checksum(start + rest) + rest


def with_extras(data, extras):
    """Put extras, bytes, before the content of a file, bytes; without any it stays as it is."""
    if not extras:
        return data
    return _whole(EXTENDED, _leb128(len(extras)) + extras + data[3:4] + data[_PREFIX:])


def split_extras(data):
    """Take the extras out of a file's content, bytes.

    Returns:
        ``(extras, data)``: bytes, none if the version has none; the content as it is without them.

    Raises:
        ValueError: as `unframe`.
    """
    _check_whole(data)
    if data[3] != EXTENDED:
        return b"", data
    start, end = _after_length(data, "extras")
    inner = data[end : end + 1]
    if inner not in (b"\1", b"\2", b"\3"):
        raise ValueError(f"Expected extras of version 1, 2 or 3. Received: {inner}")
    return data[start:end], _whole(inner[0], data[end + 1 :])


def unframe(data):
    """Take a file's content apart.

    Args:
        data: bytes.

    Returns:
        ``(architecture, tensors, version)``: bytes, bytes, int. In version 3 the tensors are all.

    Raises:
        ValueError: if it is no packed model, damaged, or of a later version.
    """
    _check_whole(data)
    if data[3] == EXTENDED:
        raise ValueError("Expected a file whose extras were split off. Received: one with extras")
    if data[3] == MIXED:
        return b"", data[_PREFIX:], MIXED
    start, end = _after_length(data, "architecture")
    return data[start:end], data[end:], data[3]


def _check_whole(data):
    if data[: len(_MAGIC)] != _MAGIC or len(data) <= _PREFIX:
        raise ValueError(f"Expected a packed model, starting with {_MAGIC}. Received: {data[:4]} ({len(data)} bytes)")
    if _checksum(data[:4] + data[_PREFIX:]) != data[4:_PREFIX]:
        raise ValueError("Expected a packed model as it was written. Received: one whose checksum is wrong")
    if data[3] not in VERSIONS:
        raise ValueError(f"Expected version {VERSIONS[0]} to {VERSIONS[-1]} of the format. Received: version {data[3]}")


def _after_length(data, what):
    """Where the part with a length before it starts and ends."""
    length = start = 0
    for start in range(_PREFIX, min(_PREFIX + _LENGTH_BYTES, len(data))):
        length |= (data[start] & 127) << 7 * (start - _PREFIX)
        if data[start] < 128:
            break
    start += 1
    if data[start - 1] >= 128 or start + length > len(data):
        raise ValueError(f"Expected at most {len(data) - start} bytes of {what}. Received: {length}")
    return start, start + length


def _checksum(data):
    return zlib.crc32(data).to_bytes(4, "little")


def _leb128(value):
    digits = []
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
