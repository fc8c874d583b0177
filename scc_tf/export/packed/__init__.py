"""A compressed model in one small file: its architecture, its weights, and all that they need, in one adaptive stream.

Kernels are compressed if they belong to self-compressing, weight-sharing or masked layers; a model may mix them. All
other weights are stored as they are.

`save_packed` and `load_packed` are for storing and sending a model; nothing but the file is needed to restore it, in
another process and on another machine. Training goes on after ``compile``, though not where it stopped: bit depths
become the smallest integers that hold the codes, and latent kernels the quantized ones.

``docs/scc-format.md`` specifies the file:

=======  =====================================================================
bytes    content
=======  =====================================================================
0-2      ``b"SCC"``
3        version of the format, 5
4-7      CRC-32 of all other bytes, little-endian
8-       a stream of `scc_tf.coding.Stream`: the text of the architecture
         (`scc_tf.export.packed.architecture`), the arrays that it lists
         (`scc_tf.export.packed.state`), the weights (`scc_tf.export.packed.weights`)
=======  =====================================================================
"""

import dataclasses
import functools
import json
import zlib
from pathlib import Path

import keras
import numpy as np
from keras import ops

from scc_tf.arguments import check_count, check_path, received
from scc_tf.atomic import atomic_path
from scc_tf.coding import LONGEST_TEXT, Stream, code_array
from scc_tf.export.packed.answers import TOLERANCE, answer_error
from scc_tf.export.packed.architecture import build_architecture, compact_architecture, functional
from scc_tf.export.packed.bounds import LARGEST_TEXT, most_weights, parse
from scc_tf.export.packed.state import read_state, restore_state, state_arrays
from scc_tf.export.packed.weights import code_weights, sparse_variables, stored_arrays
from scc_tf.graph import shared_levels
from scc_tf.safety.contract import contract_of, verdict
from scc_tf.training import SelfCompressingModel, self_compressing_layers

__all__ = ["PackedReport", "is_compressed", "load_packed", "packed_bytes", "packed_report", "save_packed"]

_MAGIC, _VERSION, _HEADER = b"SCC", 5, 8
_BYTES_PER_WEIGHT = 32
_LONGEST_ERROR = 500  # characters


@dataclasses.dataclass(frozen=True)
class PackedReport:
    """What a packed file is made of, bytes.

    Attributes:
        stored_bytes: length of the file; the other numbers sum to it.
        header_bytes: magic, version, checksum.
        architecture_bytes: layers, settings, connections.
        code_bytes: what the weights of compressed kernels are: codes (with which channels are dead), numbers of
            clusters, or the values of masked kernels.
        index_bytes: where the weights of weight-sharing and masked kernels are: positions and masks.
        codebook_bytes: centroids.
        exponent_bytes: exponents of the live channels.
        other_bytes: biases, batch statistics and every other variable; and the end of the stream.
        extra_bytes: arrays that are constants of the graph, or state of layers that is no variable.
        probe_error: largest difference between the answers of the model and of its file to a few inputs that are made
            up, relative to the largest answer or to 1 (`scc_tf.export.packed.answers`). None if they were not compared.
        kernels: of weight-sharing and masked layers, bits: ``{layer name: {"weights": …, "indices": …,
            "codebook": …}}``. Weights and positions of shared kernels are coded together; what the positions would
            take on their own counts as indices.
        safe: whether the model that the file was read back to keeps the contract (`scc_tf.safety.Contract`) of the
            model that was saved; None without a contract, or where no file was written.
        safety_accuracy: of the model that the file was read back to, a fraction; None likewise.
        safety_drop: reference minus accuracy, a fraction; None likewise.

    All share one stream, so they are rounded from fractions of a bit.
    """

    stored_bytes: int
    header_bytes: int
    architecture_bytes: int
    code_bytes: int
    exponent_bytes: int
    other_bytes: int
    index_bytes: int = 0
    codebook_bytes: int = 0
    extra_bytes: int = 0
    probe_error: float | None = None
    kernels: dict = dataclasses.field(default_factory=dict)
    safe: bool | None = None
    safety_accuracy: float | None = None
    safety_drop: float | None = None

    def __str__(self):
        """One line; parts of no bytes are left out."""
        names = [f.name for f in dataclasses.fields(self)[1:] if f.name.endswith("_bytes")]
        parts = {name.removesuffix("_bytes"): getattr(self, name) for name in names}
        text = f"{self.stored_bytes:,} B: " + ", ".join(f"{name} {size:,}" for name, size in parts.items() if size)
        return "; ".join(part for part in (text, verdict(self)) if part)


def _functional(model):
    """The graph of ``model`` as a functional model: a SelfCompressingModel if a layer is self-compressing."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            "Expected a built Sequential or functional Keras model. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    _check_compressed(model)
    if not self_compressing_layers(model):
        return functional(model, keras.Model)
    if type(model) is SelfCompressingModel:
        return model
    same = functional(model, SelfCompressingModel)
    same.starting_weights = getattr(model, "starting_weights", None)
    return same


def is_compressed(model):
    """Whether a packed file of the model has anything to compress."""
    return bool(self_compressing_layers(model) or sparse_variables(model))


def _check_no_shared_levels(model):
    """Refuse a layer that two models of different levels have: Keras would make two of it."""
    for name, owners in shared_levels(model).items():
        raise ValueError(
            f"Expected no layer that is shared by a model and one inside it, or by two of these. Received: {name!r}, "
            f"shared by {', '.join(map(repr, owners))}"
        )


def _check_compressed(model):
    if not is_compressed(model):
        raise ValueError(
            "Expected a model with self-compressing, weight-sharing or masked layers (see scc_tf.self_compress, "
            f"scc_tf.share_weights and scc_tf.add_masks). Received: {model.name!r} with none"
        )


def _pack(model):
    """``(data, report)``."""
    model = _functional(model)
    _check_no_shared_levels(model)
    compact, constants = compact_architecture(model)
    listed, arrays = state_arrays(model, constants)
    stream = Stream()
    _write_text(stream, json.dumps({**compact, **listed}, separators=(",", ":")).encode())
    text_bits = stream.bits
    for array in arrays:
        code_array(stream, np.array(array, order="C"))
    extra_bits = stream.bits - text_bits
    bits, kernels = code_weights(stream, model)
    content = stream.getvalue()
    for part in ("weights", "indices", "codebook"):
        bits[part] = sum(own[part] for own in kernels.values())
    bits = {"architecture": text_bits, "extra": extra_bits, "code": bits["codes"] + bits["weights"], **bits}
    names = {"exponent": "exponents", "index": "indices"}
    parts = ("architecture", "code", "exponent", "index", "codebook", "extra")
    sizes = {part: round(bits[names.get(part, part)] / 8) for part in parts}
    others = len(content) - sum(sizes.values())
    data = _framed(content)
    report = PackedReport(
        len(data), _HEADER, other_bytes=others, kernels=kernels, **{f"{k}_bytes": v for k, v in sizes.items()}
    )
    return data, report


def _write_text(stream, text):
    if len(text) <= LONGEST_TEXT and all(31 < byte < 127 for byte in text):
        stream.text(text, _dictionary())
        return
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"Expected an architecture of at most {LARGEST_TEXT} characters. Received: {len(text)}")
    packed = np.frombuffer(zlib.compress(text, 9), np.uint8).astype(np.int64)
    stream.text(b"", _dictionary())
    stream.number(packed.size, "byte")
    stream.uniform(packed, 8)


def _read_text(stream):
    if text := stream.text(dictionary=_dictionary()):
        return text
    size = stream.number(0, "byte")
    if not 0 <= size <= LARGEST_TEXT:
        raise ValueError(f"Expected at most {LARGEST_TEXT} bytes of text. Received: {size}")
    packed = np.zeros(size, np.int64)
    stream.uniform(packed, 8)
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(packed.astype(np.uint8).tobytes(), LARGEST_TEXT)
    if not unpacker.eof:
        raise ValueError(f"Expected a text of at most {LARGEST_TEXT} bytes. Received: a part of one")
    return text


@functools.cache
def _dictionary():
    return (Path(__file__).parents[1] / "architecture.dict").read_bytes()


def _framed(content):
    """The content of a file around a stream, bytes."""
    start = _MAGIC + bytes([_VERSION])
    return start + _checksum(start + content) + content


def _checksum(data):
    return zlib.crc32(data).to_bytes(4, "little")


def packed_bytes(model):
    """The content of the file that `save_packed` would write, without writing or reading it back.

    Args:
        model: as for `save_packed`.

    Returns:
        bytes.

    Raises:
        ValueError: as `save_packed`.

    Example:
        >>> import scc_tf
        >>> plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
        >>> len(packed_bytes(scc_tf.self_compress(plain, initial_bit_depth=4))) < 100
        True
    """
    return _pack(model)[0]


def packed_report(model):
    """What the file that `save_packed` would write is made of, without writing or reading it back.

    Args:
        model: as for `save_packed`.

    Returns:
        `PackedReport`.

    Raises:
        ValueError: as `save_packed`.

    Example:
        >>> import scc_tf
        >>> plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
        >>> packed_report(scc_tf.share_weights(plain, clusters=2)).codebook_bytes > 0
        True
    """
    return _pack(model)[1]


def save_packed(model: keras.Model, path: str | Path) -> PackedReport:
    """Write a model to a packed file, and make sure that it can be read back.

    Args:
        model: built Sequential or functional model with self-compressing, weight-sharing or masked layers.
        path: the file; by custom it ends in ``.scc``. It is either written whole or left as it was.

    Returns:
        `PackedReport` with the size of the file, ``stored_bytes``, and of its parts.

    Raises:
        ValueError: if the model is subclassed or not built, has none of these layers, contains a layer that could
            not be restored (a Lambda, a class that is not registered with Keras) or kernels that are not finite; if
            the file would answer otherwise than the model; if a mask holds other numbers than 0 and 1; if ``path`` is
            no file.

    Example:
        >>> import scc_tf
        >>> plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
        >>> report = save_packed(scc_tf.self_compress(plain, initial_bit_depth=4), "/tmp/scc_tf_doctest.scc")
        >>> import os
        >>> report.stored_bytes == os.path.getsize("/tmp/scc_tf_doctest.scc")
        True
    """
    path = check_path("path", path)
    data, report = _pack(model)
    restored = _unpack(data, max_weights=2 * sum(int(np.prod(w.shape)) for w in model.weights) + len(data) * 8)
    _check_same(model, restored)
    error = answer_error(model, restored)
    if error is not None and error > TOLERANCE:
        raise ValueError(
            f"Expected a model whose file answers as it does: a layer has state that is not stored, or settings that "
            f"its get_config does not tell. Received: {model.name!r}, answers off by {error:.2g} of the largest"
        )
    if contract := contract_of(model):
        report = dataclasses.replace(report, **contract.check(contract.accuracy_of(restored), str(path)))
    with atomic_path(path) as partial:
        partial.write_bytes(data)
    return dataclasses.replace(report, probe_error=error)


def _check_same(model, restored):
    """Raise ValueError if a weight of the restored model differs in a bit, zeros of masked kernels aside."""
    pairs = [(_bits(a), _bits(b)) for a, b in zip(_stored(model), _stored(restored), strict=True)]
    if any(a != b for a, b in pairs):
        raise ValueError(f"Expected a model that its configuration restores. Received: {model.name!r}")


def _stored(model):
    """All that a file holds of a model, as arrays."""
    yield from stored_arrays(model).values()
    for layer in self_compressing_layers(model):
        yield from (layer.quantized(name) for name in layer.kernel_names)
    yield from (ops.add(variable, ops.zeros((), variable.dtype)) for variable in sparse_variables(model))


def _bits(values):
    array = ops.convert_to_numpy(values)
    return array.shape, array.tobytes()


def _unpack(data, max_weights):
    """The model of a file's content, bytes; whatever is wrong with them ends in one ValueError of one line."""
    try:
        return _read(data, most_weights(data, max_weights))
    except Exception as error:  # whatever Keras and the coder make of bytes that nobody wrote, MemoryError included
        text = " ".join(str(error).split())
        if not (isinstance(error, ValueError) and text.startswith("Expected")):
            text = f"Expected a packed model. Received: one that raises {type(error).__name__}: {text}"
        raise ValueError(text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}…") from error


def _read(data, max_weights):
    if data[:3] != _MAGIC or len(data) <= _HEADER:
        raise ValueError(f"Expected a packed model, starting with {_MAGIC}. Received: {data[:4]} ({len(data)} bytes)")
    if data[3] != _VERSION:
        raise ValueError(
            f"Expected version {_VERSION} of the format. Received: version {data[3]}; save the model again with the "
            "version of scc_tf that reads it"
        )
    if _checksum(data[:4] + data[_HEADER:]) != data[4:_HEADER]:
        raise ValueError("Expected a packed model as it was written. Received: one whose checksum is wrong")
    stream = Stream(data[_HEADER:])
    compact = parse(_read_text(stream))
    listed = {key: compact.pop(key) for key in ("constants", "state") if key in compact}
    constants, states = read_state(stream, listed, max_weights)
    model = build_architecture(compact, max_weights, constants)
    _check_compressed(model)
    code_weights(stream, model)
    stream.check_end()
    restore_state(model, states)
    return model


def load_packed(path: str | Path, max_weights: int | None = 2**28) -> keras.Model:
    """Read a model from a packed file.

    The file may be of anyone: only layers and operations of a list are built (`scc_tf.allowed`), no code
    is taken from it, and it cannot ask for more than `scc_tf.export.packed.bounds` says: 2^24 weights and 4,096 more
    per byte, for example. Classes other than those of Keras and of this library must be registered with Keras before.

    Args:
        path: the file.
        max_weights: most weights that the model may have, bit depths and exponents included. A file that claims
            more is refused before they are allocated.

    Returns:
        `scc_tf.SelfCompressingModel`, or a plain functional `keras.Model` if no layer is self-compressing; not
        compiled. Its quantized kernels and all other weights are those of the saved model, bit for bit; what a mask
        prunes is +0, and so is a bias of -0 of a self-compressing layer. A bias that its layer rounds is rounded.

    Raises:
        ValueError: if an argument is wrong, or the file is no packed model, damaged, of a later version, asks for too
            much, or names an unknown class. Whatever it holds, no other error comes out.
        OSError: if there is no such file, or it cannot be read.

    Example:
        >>> import scc_tf
        >>> plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
        >>> _ = save_packed(scc_tf.self_compress(plain, initial_bit_depth=4), "/tmp/scc_tf_doctest.scc")
        >>> load_packed("/tmp/scc_tf_doctest.scc").layers[-1].codes().numpy().tolist()
        [[7, 7], [7, 7], [7, 7]]
    """
    path = check_path("path", path, exists=True)
    max_weights = check_count("max_weights", max_weights)
    if not path.is_file():
        raise ValueError(f"Expected path to be a regular file. {received('path', str(path))}")
    if (size := path.stat().st_size) > _BYTES_PER_WEIGHT * max_weights + LARGEST_TEXT:
        raise ValueError(f"{path}: Expected a model of at most {max_weights} weights. Received: {size} bytes")
    try:
        return _unpack(path.read_bytes(), max_weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
