import itertools
import os

import keras
import numpy as np
import pytest
from test_packed import trained_like

import scc_tf
from scc_tf.export import load_packed
from scc_tf.export.packed import _framed, _unpack, packed_bytes


@pytest.fixture(scope="module")
def packed():
    inputs = keras.Input((6, 6, 1), name="image")
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    plain = keras.Model(inputs, keras.layers.Dense(3, name="head")(keras.layers.Flatten()(x)), name="tiny")
    return packed_bytes(trained_like(scc_tf.self_compress(plain, 4)))


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


def check_damage_is_found(packed, count, seed):
    for data in mutations(packed, count, seed):
        with pytest.raises(ValueError, match="Received"):
            _unpack(data, 1000)


def check_the_inner_parsers(packed, count, seed):
    """Damage behind a valid checksum: a model or a ValueError, and no other exception."""
    for data in mutations(packed[8:], count, seed):
        try:
            model = _unpack(_framed(data), 10_000)
        except ValueError as error:
            assert "Received" in str(error)
        else:
            assert isinstance(model, scc_tf.SelfCompressingModel)
            for layer in model.layers:
                for fmt in getattr(layer, "formats", ()):
                    assert np.isfinite(layer.quantized(fmt.name)).all()


@pytest.mark.slow
def test_damage_is_found(packed):
    check_damage_is_found(packed, 5_000, 0)


@pytest.mark.slow
def test_damage_behind_a_valid_checksum(packed):
    check_the_inner_parsers(packed, 120, 1)


def test_every_prefix_is_refused(packed):
    for length in range(len(packed)):
        with pytest.raises(ValueError, match="Received"):
            _unpack(packed[:length], 1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "starting with"),
        (b"SCC\x05", "starting with"),
        (b"PK\x03\x04 something else", "starting with"),
        (os.urandom(1000), "starting with"),
        (b"SCC\x06\0\0\0\0a file of the future", "Expected version 5 .*version 6"),
        (b"SCC\x03\0\0\0\0a file of the past", "Expected version 5 .*version 3; save the model again"),
        (_framed(b"no stream that has any meaning"), "Expected .*Received"),
        (_framed(b"\0"), "Expected .*Received"),
    ],
    ids=["empty", "header only", "zip", "random", "future", "past", "noise", "nothing"],
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


def test_more_weights_than_the_model_has(packed):
    with pytest.raises(ValueError, match="Expected the stream to end here"):
        _unpack(_framed(packed[8:] + b"a few bytes more"), 1000)
