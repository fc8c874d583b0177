import io
import zipfile

import numpy as np
import pytest

from scc_tf.arrays_file import read_arrays_file

KINDS = {"counts": "iu", "words": "U"}


def part(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def claim(shape, dtype):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(40)


def archive(path, parts, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in parts:
            file.writestr(f"{name}.npy", content)
    return path


COUNTS, WORDS = part(np.arange(4)), part(np.array(["a", "bc"]))


def test_what_is_asked_for_is_read_and_the_rest_left_alone(tmp_path):
    others = [("other", claim((10**12,), "<f8")), ("code", part(np.array(3)) + b"?")]
    path = archive(tmp_path / "a.npz", [("counts", COUNTS), ("words", WORDS), *others])
    arrays = read_arrays_file(path, KINDS)
    assert {name: array.tolist() for name, array in arrays.items()} == {"counts": [0, 1, 2, 3], "words": ["a", "bc"]}


@pytest.mark.parametrize(
    "parts, message",
    [
        ([("counts", COUNTS)], "words"),
        ([("counts", COUNTS), ("counts", COUNTS), ("words", WORDS)], "counts.npy"),
        ([("counts", claim((10**12,), "<i8")), ("words", WORDS)], "counts to be whole"),
        ([("counts", claim((-1,), "<i8")), ("words", WORDS)], "counts"),
        ([("counts", COUNTS + b"more"), ("words", WORDS)], "counts to be whole"),
        ([("counts", COUNTS), ("words", claim((8,), "<U500000000"))], "words"),
        ([("counts", part(np.arange(4.0))), ("words", WORDS)], "counts to be of a kind"),
        ([("counts", part(np.array([{}]))), ("words", WORDS)], "counts to be of a kind"),
        ([("counts", part(np.zeros(2, [("a", "i4")]))), ("words", WORDS)], "counts to be of a kind"),
        ([("counts", b"\x93NUMPY\x03\x00"), ("words", WORDS)], "version"),
        ([("counts", b""), ("words", WORDS)], "Expected"),
    ],
    ids=[
        "missing",
        "twice",
        "count",
        "sign",
        "longer",
        "width",
        "floats",
        "pickle",
        "fields",
        "later",
        "empty",
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_claims_are_checked_before_they_cost_memory(parts, message, tmp_path):
    path = archive(tmp_path / "a.npz", parts)
    with pytest.raises(ValueError, match=message) as caught:
        read_arrays_file(path, KINDS)
    assert "\n" not in str(caught.value)


def test_a_small_file_cannot_grow_without_end(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.npz", [("counts", part(np.zeros(1 << 18, np.int64))), ("words", WORDS)])
    read_arrays_file(path, KINDS)
    monkeypatch.setattr("scc_tf.arrays_file._FREE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"at most .* bytes of arrays"):
        read_arrays_file(path, KINDS)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method, tmp_path):
    path = archive(tmp_path / "a.npz", [("counts", COUNTS), ("words", WORDS)], method)
    with pytest.raises(ValueError, match="deflated"):
        read_arrays_file(path, KINDS)


def test_damaged_and_missing_files(tmp_path):
    whole = archive(tmp_path / "a.npz", [("counts", COUNTS), ("words", WORDS)]).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="Expected"):
            read_arrays_file(tmp_path / "cut.npz", KINDS)
    with pytest.raises(FileNotFoundError):
        read_arrays_file(tmp_path / "none.npz", KINDS)
