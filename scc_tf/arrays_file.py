"""Arrays from ``.npz`` files of anyone: what a file claims is checked before it costs memory.

A file is a zip archive of arrays, each with a header that says its type and shape. Both the directory of the archive
and the headers can claim anything; here they must agree with each other and with the length of the file.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

__all__ = ["read_arrays_file"]

_FREE_BYTES = 1 << 26  # of arrays, whatever the length of the file
_EXPANSION = 256  # bytes of arrays per byte of the file beyond those; deflated zeros reach 1,030
_LONGEST_WORD = 256  # characters of a string in an array
_LONGEST_HEADER = 10_000


def read_arrays_file(path, kinds):
    """Read the arrays of an ``.npz`` file.

    Args:
        path: the file.
        kinds: ``{name: kinds}``: of each array that must be there, the kinds of type that it may have, letters of
            ``numpy.dtype.kind``. Other arrays in the file are left alone.

    Returns:
        ``{name: array}``.

    Raises:
        ValueError: if the file is damaged, lacks an array or has it twice, or an array is not of such a kind, has
            not the length that its header claims, or takes more than 64 MiB and 256 times the length of the file.
        OSError: if the file cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        most = _FREE_BYTES + _EXPANSION * path.stat().st_size
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, kinds, most)
                return {name: _read(archive, members[name], name, kinds[name]) for name in kinds}
        except Exception as error:  # damaged archives raise a dozen unrelated types, from half a dozen places
            text = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(text if text.startswith("Expected") else f"Expected arrays. Received: {text}") from error


def _members(archive, names, most):
    """The members of the names, each there once, and together not larger than ``most`` bytes."""
    wanted = {f"{name}.npy": name for name in names}
    found = [(wanted[member.filename], member) for member in archive.infolist() if member.filename in wanted]
    if sorted(name for name, _ in found) != sorted(names):
        raise ValueError(f"Expected the arrays {sorted(names)}. Received: {archive.namelist()}")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for _, member in found):
        raise ValueError("Expected arrays that are stored or deflated. Received: another compression")
    size = sum(member.file_size for _, member in found)
    if size > most:
        raise ValueError(f"Expected at most {most:,} bytes of arrays in such a file. Received: {size:,}")
    return dict(found)


def _read(archive, member, name, kinds):
    with archive.open(member) as stream:
        shape, dtype, start = _header(stream)
    words = dtype.kind == "U" and dtype.itemsize > 4 * _LONGEST_WORD
    if dtype.hasobject or dtype.kind not in kinds or words or min(shape, default=1) < 0:
        raise ValueError(
            f"Expected {name} to be of a kind in {kinds!r}. Received: {name} of {dtype.str}, shape {shape}"
        )
    if start + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(
            f"Expected {name} to be whole. Received: {member.file_size:,} bytes for shape {shape} of {dtype.str}"
        )
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=_LONGEST_HEADER)


def _header(stream):
    """``(shape, dtype, length of the header in bytes)``."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"Expected version 1 or 2 of the array format. Received: {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream, max_header_size=_LONGEST_HEADER)
    return shape, dtype, stream.tell()
