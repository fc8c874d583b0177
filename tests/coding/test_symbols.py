import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scc_tf.coding import LONGEST_TEXT, Stream, code_array, code_floats
from scc_tf.coding.stream import KINDS

DICTIONARY = b'{"name":"small","width":12}\0{"name":"other","width":7,"depth":3}\0'


def written(code, *values):
    writer = Stream()
    for value in values:
        code(writer, value.copy())
    return writer.getvalue()


def check_round_trip(code, *values):
    data = written(code, *values)
    reader = Stream(data)
    for value in values:
        restored = np.zeros_like(value)
        code(reader, restored)
        assert restored.tobytes() == value.tobytes()
    reader.check_end()
    return data


def code_numbers(stream, values):
    stream.numbers(values, "fixed")


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(hnp.arrays(np.int64, st.integers(0, 20), elements=st.integers(-3, 3) | st.integers(-(2**61), 2**61))))
def test_any_numbers_survive(arrays):
    check_round_trip(code_numbers, *arrays)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32) | st.integers(-9, 9).map(lambda n: n / 8))
)
def test_any_floats_survive(values):
    check_round_trip(code_floats, values)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "uint8", "bool"])
def test_arrays_of_other_dtypes_survive(dtype):
    check_round_trip(code_array, np.random.default_rng(0).normal(0, 3, (4, 5)).astype(dtype))


def test_biases_on_a_grid_take_about_their_entropy():
    values = np.float32(np.rint(np.random.default_rng(0).laplace(0, 2, 500)) / 16 + 0.0)
    counts = np.unique(values, return_counts=True)[1]
    assert len(check_round_trip(code_floats, values)) < 1.05 * np.sum(counts * np.log2(500 / counts)) / 8 + 3
    assert len(check_round_trip(code_floats, np.zeros(500, np.float32))) < 8


def test_short_floats_take_the_bits_that_they_have():
    mantissas, exponents = np.frexp(np.random.default_rng(0).normal(size=200))
    values = np.ldexp(np.rint(mantissas * 16) / 16, exponents).astype(np.float32)
    assert len(check_round_trip(code_floats, values)) < 200 * 7.5 / 8


def coded_text(text, dictionary=DICTIONARY):
    writer = Stream()
    assert writer.text(text, dictionary) == text
    return writer.getvalue()


@settings(max_examples=30)
@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300).map(str.encode),
    st.sampled_from([b"", DICTIONARY]),
)
def test_any_text_survives(text, dictionary):
    writer = Stream()
    writer.text(text, dictionary)
    writer.numbers(np.array([7]))
    reader = Stream(writer.getvalue())
    assert reader.text(dictionary=dictionary) == text
    assert reader.number() == 7
    reader.check_end()


def test_long_texts_survive():
    text = np.random.default_rng(0).integers(32, 127, 10_000, np.uint8).tobytes()
    data = coded_text(text)
    assert Stream(data).text(dictionary=DICTIONARY) == text
    assert len(data) < 8_700  # 6.57 bits each


def test_a_text_of_the_dictionary_with_another_number_takes_few_bytes():
    known = DICTIONARY * 10
    assert len(coded_text(b'{"name":"other","width":9,"depth":3}', known)) < 6
    assert len(coded_text(b'{"name":"other","width":9,"depth":3}', b"")) > 20


def test_texts_that_are_refused():
    for text in (b"a\0b", b"a\x80b", b"a" * (LONGEST_TEXT + 1)):
        with pytest.raises(ValueError, match="at most 131072 bytes of ASCII"):
            Stream().text(text)
    data = coded_text(b"a" * LONGEST_TEXT)
    assert len(Stream(data).text(dictionary=DICTIONARY)) == LONGEST_TEXT


def test_damage_raises_or_reads_floats():
    rng = np.random.default_rng(0)
    values = [np.rint(rng.normal(0, 9, 40)).astype(np.float32), rng.normal(size=20).astype(np.float32)]
    data = written(code_floats, *values)
    with pytest.raises(ValueError, match="the stream to end"):
        reader = Stream(data + b"more than the coder looks ahead")
        for value in values:
            code_floats(reader, value.copy())
        reader.check_end()
    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= rng.integers(1, 256)
        reader = Stream(bytes(damaged))
        try:
            for value in values:
                code_floats(reader, value.copy())
            reader.check_end()
        except ValueError as error:
            assert "Received" in str(error)


def test_the_bytes_stay_what_they_are():
    """Frozen: if this fails, files that were written before can no longer be read."""
    writer = Stream()
    writer.text(b'{"name":"new","width":[1,23]}', DICTIONARY)
    for step in (1, 7, 91):
        writer.numbers(np.arange(-500, 500, step) ** 3 // 10**6, KINDS[step % 8])
    floats = np.float32([0.5, -3, 0, 1e-9, 2.75, -0.0, np.inf, struct.unpack("f", b"\1\0\0\0")[0]])
    code_floats(writer, floats)
    code_floats(writer, floats[:3].copy())
    data = writer.getvalue()
    assert (len(data), zlib.crc32(data)) == GOLDEN_CHECK


GOLDEN_CHECK = (681, 1436200207)


WITHOUT_COMPILER = """
import sys
import numpy as np
from scc_tf.coding import Stream
numbers, kernel = np.zeros(4, np.int64), np.zeros((3, 3, 2, 3), np.int32)
reader = Stream(bytes.fromhex(sys.argv[1]))
text = reader.text(dictionary=b'{"units":34}' + bytes(1))
reader.numbers(numbers)
reader.kernel(kernel, reader.channels(kernel))
reader.check_end()
print("READ", text.decode(), numbers.tolist(), kernel.ravel().tolist())
"""


@pytest.mark.slow
def test_a_process_without_the_compiler_reads_the_same():
    kernel = (2 * np.random.default_rng(0).normal(size=(3, 3, 2, 3))).round().astype(np.int32)
    numbers = np.array([3, -1, 2, 10**9])
    writer = Stream()
    writer.text(b'{"units":12}', b'{"units":34}\0')
    writer.numbers(numbers.copy())
    writer.kernel(kernel, writer.channels(kernel))
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", WITHOUT_COMPILER, writer.getvalue().hex()]
    done = subprocess.run(
        command, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f'READ {{"units":12}} {numbers.tolist()} {kernel.ravel().tolist()}' in done.stdout
