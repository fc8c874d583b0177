import itertools
import os
import zlib

import keras
import numpy as np
import pytest
from test_packed import trained_like

import scc_tf
from scc_tf.export import load_packed
from scc_tf.export.packed import _functional, _pack_mixed, _pack_older, _unpack
from scc_tf.export.packed.architecture import architecture_text, read_dictionary
from scc_tf.export.packed.header import MIXED, PLAIN, frame, unframe


def in_version(version, model, text=None):
    """The content of a file in that version, whichever is the smallest."""
    model = _functional(model)
    text = architecture_text(model) if text is None else text
    data, _ = _pack_mixed(model, text) if version == MIXED else _pack_older(model, text)
    assert data[3] == version
    return data


@pytest.fixture(scope="module", params=[PLAIN, MIXED])
def packed(request):
    inputs = keras.Input((6, 6, 1), name="image")
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    plain = keras.Model(inputs, keras.layers.Dense(3, name="head")(keras.layers.Flatten()(x)), name="tiny")
    return in_version(request.param, trained_like(scc_tf.self_compress(plain, 4)))


def flip_bit(data, rng):
    place = rng.integers(len(data))
    data[place] ^= 1 << rng.integers(8)


def change_bytes(data, rng):
    for place in rng.integers(len(data), size=rng.integers(1, 5)):
        data[place] = rng.integers(256)


def truncate(data, rng):
    del data[rng.integers(len(data)) :]


def insert(data, rng):
    place = rng.integers(len(data) + 1)
    data[place:place] = rng.bytes(rng.integers(1, 9))


def duplicate(data, rng):
    start, length = rng.integers(len(data)), rng.integers(1, 30)
    data[start:start] = data[start : start + length]


def zero_range(data, rng):
    start = rng.integers(len(data))
    length = len(data[start : start + rng.integers(1, 30)])
    data[start : start + length] = bytes(length)


MUTATIONS = [flip_bit, change_bytes, truncate, insert, duplicate, zero_range]


def mutations(packed, count, seed):
    """``count`` damaged copies, each one unlike the original."""
    rng = np.random.default_rng(seed)
    kinds = itertools.cycle(MUTATIONS)
    while count:
        data = bytearray(packed)
        next(kinds)(data, rng)
        if data != packed:
            count -= 1
            yield bytes(data)


def with_valid_checksum(data):
    return data[:4] + zlib.crc32(data[:4] + data[8:]).to_bytes(4, "little") + data[8:]


def check_damage_is_found(packed, count, seed):
    for data in mutations(packed, count, seed):
        with pytest.raises(ValueError, match="Received"):
            _unpack(data, 1000)


def check_the_inner_parsers(packed, count, seed):
    """Damage behind a valid checksum: a model or a ValueError, and no other exception."""
    for data in mutations(packed, count, seed):
        try:
            model = _unpack(with_valid_checksum(data), 10_000)
        except ValueError as error:
            assert "Received" in str(error)
        else:
            assert isinstance(model, scc_tf.SelfCompressingModel)
            for layer in model.layers:
                for fmt in getattr(layer, "formats", ()):
                    assert np.isfinite(layer.quantized(fmt.name)).all()


def check_the_tensors_alone(packed, count, seed):
    """Damage of the tensors only, which no syntax protects."""
    architecture, tensors, version = unframe(packed)
    for data in mutations(tensors, count, seed):
        try:
            model = _unpack(frame(architecture, data, version), 10_000)
        except ValueError as error:
            assert "Received" in str(error)
        else:
            assert isinstance(model, scc_tf.SelfCompressingModel)


@pytest.mark.slow
def test_damage_is_found(packed):
    check_damage_is_found(packed, 5_000, 0)


@pytest.mark.slow
def test_damage_behind_a_valid_checksum(packed):
    check_the_inner_parsers(packed, 60, 1)
    check_the_tensors_alone(packed, 60, 2)


def test_every_prefix_is_refused(packed):
    for length in range(len(packed)):
        with pytest.raises(ValueError, match="Received"):
            _unpack(packed[:length], 1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "starting with"),
        (b"SCC\x01", "starting with"),
        (b"PK\x03\x04 something else", "starting with"),
        (os.urandom(1000), "starting with"),
        (with_valid_checksum(b"SCC\x05\0\0\0\0a file of the future"), "version 1 .*version 5"),
        (with_valid_checksum(b"SCC\x03\0\0\0\0no stream that has any meaning"), "Expected .*Received"),
        (with_valid_checksum(b"SCC\x01\0\0\0\0\xff\xff\xff\xff\xff\xff\xff"), "bytes of architecture"),
        (with_valid_checksum(b"SCC\x01\0\0\0\0\x90\x90\x03only a few"), "bytes of architecture"),
        (frame(b"", b""), "deflate"),
        (frame(read_dictionary(), b""), "architecture"),
    ],
    ids=["empty", "header only", "zip", "random", "future", "noise", "length", "oversized claim", "nothing", "text"],
)
def test_other_files(content, message, tmp_path):
    (tmp_path / "other.scc").write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s)other.scc: Expected .*{message}.* Received|{message}"):
        load_packed(tmp_path / "other.scc")


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="folder"):
        load_packed(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_packed(tmp_path / "missing.scc")


def test_more_tensors_than_the_model_has(packed):
    architecture, tensors, version = unframe(packed)
    with pytest.raises(ValueError, match="Expected the stream to end here"):
        _unpack(frame(architecture, tensors + b"a few bytes more", version), 1000)
