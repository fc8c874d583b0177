"""Packed files that somebody has tampered with: mutations of bytes, of architectures, of weights.

A case is known by a seed and its number alone, so that one that fails can be made again.
"""

import copy
import functools
import json

import keras
import numpy as np
import tensorflow as tf

import scc_tf
from scc_tf.coding import Stream
from scc_tf.export.packed import _framed, _read_text, _unpack, _write_text, packed_bytes

L = keras.layers
WEIGHTS = 100_000  # that a file may claim
NUMBERS = (0, 1, -1, 2, 3, 7, 255, 65_536, 10**6, 2**31 - 1, 2**31, 2**40, 2**63, -(2**31), 0.5, -1.5, 1e308, 1e-30)
TAGS = (
    "Dense", "Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D", "Embedding", "LSTM", "GRU", "Bidirectional",
    "BatchNormalization", "LayerNormalization", "Normalization", "Lambda", "TFSMLayer", "Reshape", "Flatten", "RepeatVector",
    "UpSampling2D", "ZeroPadding2D", "Permute", "MultiHeadAttention", "EinsumDense", "StringLookup", "TextVectorization",
    "Discretization", "Hashing", "CategoryEncoding", "TimeDistributed", "InputLayer", "Sequential", "Functional", "Model",
    "scc_tf>Dense", "scc_tf>Conv2D", "scc_tf>EinsumDense", "scc_tf>WeightSharingDense", "scc_tf>MaskedDense", "Resizing",
    "RandomCrop", "MelSpectrogram", "STFTSpectrogram", "JaxLayer", "TorchModuleWrapper", "Add", "Concatenate", "Pipeline",
)  # fmt: skip
OBJECTS = (
    {"class_name": "__lambda__", "config": {"value": "4wAAAAA=", "defaults": None, "closure": None}},
    {"class_name": "__numpy__", "config": {"value": [1.0], "dtype": "float32"}},
    {"class_name": "__tensor__", "config": {"value": [1.0], "dtype": "float32"}},
    {"class_name": "__typespec__", "config": {}},
    {"class_name": "function", "config": "print", "module": "builtins"},
    {"class_name": "system", "config": {"command": "true"}, "module": "os", "registered_name": None},
    {"class_name": "Zeros", "config": {}, "module": "keras.initializers"},
    {"class_name": "L2", "config": {"l2": float("nan")}, "module": "keras.regularizers"},
    {"@": 1}, {"@": 10**9}, {"@": [1, 0, 7]}, {"#": 0}, [], {}, "", "relu", "__main__", None, True,
)  # fmt: skip


def _named(*layers, shape=(6, 6, 1), name="tiny"):
    return keras.Sequential([keras.Input(shape, name="image"), *layers], name=name)


def _plain():
    head = L.Dense(3, name="head")
    yield _named(L.Conv2D(3, 3, name="conv"), L.BatchNormalization(name="norm"), L.ReLU(), L.Flatten(), head)
    yield _named(L.EinsumDense("ab,bc->ac", output_shape=4, bias_axes="c", name="mix"), L.Dense(2), shape=(5,))
    inner = _named(L.Dense(4, "relu", name="inside"), shape=(4,), name="inner")
    inputs = keras.Input((4,), name="row")
    yield keras.Model(
        inputs, L.Dense(2, name="out")(inner(inner(inputs)) + tf.constant([0.5, 1.0, 2.0, 3.0])), name="nested"
    )
    norm = L.Normalization(name="scale")
    norm.adapt(np.arange(12.0).reshape(4, 3))
    yield _named(norm, L.Reshape((3, 1)), L.Conv1D(2, 2), L.GlobalMaxPooling1D(), L.Dense(2), shape=(3,), name="signal")


def _models():
    keras.utils.set_random_seed(0)
    networks = list(_plain())
    for network in networks:
        small = scc_tf.self_compress(network, 4)
        small.layers[-1].bit_depth.assign(np.arange(small.layers[-1].units) % 5)
        yield small
    yield scc_tf.share_weights(networks[0], clusters=3)
    masked = scc_tf.add_masks(networks[1])
    masked.layers[-1].prune(np.arange(8).reshape(4, 2) % 3 == 0)
    yield masked


def corpus():
    """Contents of small files of several kinds: list of bytes."""
    keras.utils.clear_session(free_memory=False)  # layers without names are numbered from the first again
    return [packed_bytes(model) for model in _models()]


def _tampered_bytes(data, rng):
    """Bytes with one to three changes."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        start, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 30))
        kind = rng.integers(6)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << rng.integers(8)
        elif kind == 1:
            data[start : start + 1] = rng.bytes(1)
        elif kind == 2:
            del data[start:]
        elif kind == 3:
            data[start:start] = rng.bytes(length)
        elif kind == 4:
            data[start:start] = data[start : start + length]
        else:
            data[start : start + length] = rng.choice([b"\0", b"\xff", b"\x80"]) * length
    return bytes(data)


def _places(value, path=()):
    """The paths to all values in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def _at(value, path):
    for key in path:
        value = value[key]
    return value


def _tampered_json(value, rng):
    """A JSON value with one to three changes."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(value))[1:]
        if places:
            *parent, key = places[rng.integers(len(places))]
            other = _at(value, places[rng.integers(len(places))])
            _change(_at(value, parent), key, other, rng)
    return value


def _change(parent, key, other, rng):
    """Change one entry of a list or dictionary; ``other`` stands elsewhere in the value."""
    old, kind = parent[key], rng.integers(8)
    if isinstance(old, int | float) and kind < 5:
        parent[key] = _one_of(NUMBERS, rng)
    elif isinstance(old, str) and kind < 5:
        parent[key] = _one_of(TAGS, rng)
    elif kind < 5 and isinstance(parent, list):
        _move(parent, key, kind, rng)
    elif kind < 4:
        parent[key] = _one_of(OBJECTS, rng)
    elif kind == 4:
        del parent[key]
    elif kind == 5:
        for _ in range(int(rng.choice([1, 5, 300]))):
            parent[key] = [parent[key]] if rng.random() < 0.7 else {"config": parent[key]}
    elif kind == 6:
        parent[key] = copy.deepcopy(other)
    elif isinstance(parent, dict):
        parent[str(rng.choice(["units", "filters", "activation", "dtype", "layers", "calls", "x"]))] = old


def _move(entries, key, kind, rng):
    """Delete, repeat, move or replace an entry of a list."""
    if kind == 0:
        del entries[key]
    elif kind == 1:
        entries[key:key] = [copy.deepcopy(entries[key])] * int(rng.choice([1, 2, 50]))
    elif kind == 2:
        entries.insert(int(rng.integers(len(entries))), entries.pop(key))
    else:
        entries[key] = _one_of(OBJECTS, rng)


def _one_of(choices, rng):
    return copy.deepcopy(choices[rng.integers(len(choices))])


@functools.cache
def _text_of(data):
    """The text of the architecture in a file's content, bytes, and about how many bytes it takes."""
    text = _read_text(Stream(data[8:]))
    return text, len(_content(text))


def _content(text):
    """A stream of a text, bytes; of one that holds more than ASCII, deflated."""
    stream = Stream()
    _write_text(stream, text)
    return stream.getvalue()


def with_text(text, rest=b""):
    """The content of a file with that text, bytes, and others behind it."""
    return _framed((_content(text) + rest).ljust(1, b"\0"))


def case(files, seed, number):
    """The content of one tampered file, bytes.

    Args:
        files: a `corpus`.
        seed: of all cases.
        number: of this one.
    """
    rng = np.random.default_rng((seed, number))
    data = files[rng.integers(len(files))]
    kind = rng.random()
    if kind < 0.35:
        return _framed(_tampered_bytes(data[8:], rng).ljust(1, b"\0"))
    text, end = _text_of(data)
    if kind < 0.55:
        return _framed(data[8 : 8 + end] + _tampered_bytes(data[8 + end :], rng))
    rest = rng.bytes(rng.integers(40))
    if kind < 0.65:
        return with_text(_tampered_bytes(text, rng), rest)
    try:
        changed = json.dumps(_tampered_json(json.loads(text), rng), separators=(",", ":")).encode()
    except RecursionError:  # nested too deep to be written, not to be read
        changed = b"[" * 5_000
    return with_text(changed, rest)


def outcome(data):
    """What becomes of reading a content: ``"loaded"``, ``"refused"`` or the name of what else is raised.

    A refusal by the last guard, which turns whatever Keras raises into one ValueError, names what it has caught.
    """
    try:
        _unpack(data, WEIGHTS)
    except ValueError as error:
        caught = error.__cause__
        said = str(error)
        if "Received" not in said or "\n" in said:
            return f"unclear: {said[:80]}"
        is_own = isinstance(caught, ValueError) and str(caught).startswith("Expected")
        return "refused" if is_own or caught is None else f"refused after {type(caught).__name__}"
    except OSError:
        return "refused"
    except BaseException as error:
        return type(error).__name__
    return "loaded"
