"""The frame of a packed file: what it is, whether it is whole, and where its parts are.

=======  =====================================================================
bytes    content
=======  =====================================================================
0-2      ``b"SCC"``
3        version of the format: 3, or 1, or 2 with weight-sharing or masked layers
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
"""

import zlib

__all__ = ["MIXED", "PLAIN", "SPARSE", "VERSIONS", "frame", "unframe"]

VERSIONS = (1, 2, 3)
PLAIN, SPARSE, MIXED = VERSIONS
_MAGIC = b"SCC"
_PREFIX = 8
_LENGTH_BYTES = 5


def frame(architecture, tensors, version=PLAIN):
    """Put the two parts, bytes, into one file's content, bytes; in version 3 ``architecture`` is empty."""
    length = b"" if version == MIXED else _leb128(len(architecture))
    start, rest = _MAGIC + bytes([version]), length + architecture + tensors
    return start + _checksum(start + rest) + rest


def unframe(data):
    """Take a file's content apart.

    Args:
        data: bytes.

    Returns:
        ``(architecture, tensors, version)``: bytes, bytes, int. In version 3 the tensors are all.

    Raises:
        ValueError: if it is no packed model, damaged, or of a later version.
    """
    if data[: len(_MAGIC)] != _MAGIC or len(data) <= _PREFIX:
        raise ValueError(f"Expected a packed model, starting with {_MAGIC}. Received: {data[:4]} ({len(data)} bytes)")
    if _checksum(data[:4] + data[_PREFIX:]) != data[4:_PREFIX]:
        raise ValueError("Expected a packed model as it was written. Received: one whose checksum is wrong")
    if data[3] not in VERSIONS:
        raise ValueError(f"Expected version {VERSIONS[0]} to {VERSIONS[-1]} of the format. Received: version {data[3]}")
    if data[3] == MIXED:
        return b"", data[_PREFIX:], MIXED
    length = start = 0
    for start in range(_PREFIX, min(_PREFIX + _LENGTH_BYTES, len(data))):
        length |= (data[start] & 127) << 7 * (start - _PREFIX)
        if data[start] < 128:
            break
    start += 1
    if data[start - 1] >= 128 or start + length > len(data):
        raise ValueError(f"Expected at most {len(data) - start} bytes of architecture. Received: {length}")
    return data[start : start + length], data[start + length :], data[3]


def _checksum(data):
    return zlib.crc32(data).to_bytes(4, "little")


def _leb128(value):
    digits = []
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
