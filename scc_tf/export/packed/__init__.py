"""A self-compressing model in one small file: the codes as the entropy coder writes them, and all that they need.

`save_packed` and `load_packed` are for storing and sending a model; nothing but the file is needed to restore it, in
another process and on another machine. Training goes on after ``compile``, though not where it stopped: bit depths
become the smallest integers that hold the codes, and latent kernels the quantized ones.

The file holds a header (`scc_tf.export.packed.header`, with the layout of the bytes), the architecture
(`scc_tf.export.packed.architecture`) and the tensors (`scc_tf.export.packed.tensors`).
"""

import dataclasses
from pathlib import Path

import keras
import numpy as np

from scc_tf.atomic import atomic_path
from scc_tf.coding import Reader, Writer
from scc_tf.export.packed.architecture import pack_architecture, unpack_architecture
from scc_tf.export.packed.header import frame, unframe
from scc_tf.export.packed.tensors import other_variables, read_tensors, write_tensors
from scc_tf.training import SelfCompressingModel, self_compressing_layers

__all__ = ["PackedReport", "load_packed", "packed_bytes", "save_packed"]


@dataclasses.dataclass(frozen=True)
class PackedReport:
    """What a packed file is made of, bytes.

    Attributes:
        stored_bytes: length of the file; the other attributes sum to it.
        header_bytes: magic, version, checksum, length.
        architecture_bytes: layers, settings, connections.
        code_bytes: codes of all kernels, and which channels are dead, their scales and bounds.
        exponent_bytes: exponents of the live channels.
        other_bytes: biases, batch statistics and every other variable; and the end of the stream.

    The last three share one stream, so the first two of them are rounded from fractions of a bit.
    """

    stored_bytes: int
    header_bytes: int
    architecture_bytes: int
    code_bytes: int
    exponent_bytes: int
    other_bytes: int

    def __str__(self):
        """One line."""
        parts = {f.name.removesuffix("_bytes"): getattr(self, f.name) for f in dataclasses.fields(self)[1:]}
        return f"{self.stored_bytes:,} B: " + ", ".join(f"{name} {size:,}" for name, size in parts.items())


def _functional(model):
    """The graph of ``model`` as a SelfCompressingModel."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            "Expected a built Sequential or functional Keras model. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    if not self_compressing_layers(model):
        raise ValueError(
            f"Expected a model with self-compressing layers (see scc_tf.self_compress). "
            f"Received: {model.name!r} with none"
        )
    if type(model) is SelfCompressingModel:
        return model
    ends = (model.inputs[0], model.outputs[0]) if isinstance(model, keras.Sequential) else (model.input, model.output)
    same = SelfCompressingModel(*ends, name=model.name)
    same.starting_weights = getattr(model, "starting_weights", None)
    return same


def _pack(model):
    model, writer = _functional(model), Writer()
    architecture = pack_architecture(model)
    bits = write_tensors(writer, model)
    tensors = writer.getvalue()
    data = frame(architecture, tensors)
    codes, exponents = round(bits["codes"] / 8), round(bits["exponents"] / 8)
    report = PackedReport(
        stored_bytes=len(data),
        header_bytes=len(data) - len(architecture) - len(tensors),
        architecture_bytes=len(architecture),
        code_bytes=codes,
        exponent_bytes=exponents,
        other_bytes=len(tensors) - codes - exponents,
    )
    return data, report


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


def save_packed(model, path):
    """Write a model to a packed file, and make sure that it can be read back.

    Args:
        model: built Sequential or functional model with self-compressing layers.
        path: the file; by custom it ends in ``.scc``. It is either written whole or left as it was.

    Returns:
        `PackedReport` with the size of the file, ``stored_bytes``, and of its parts.

    Raises:
        ValueError: if the model is subclassed or not built, has no self-compressing layer, contains a layer that
            could not be restored (a Lambda, a class that is not registered with Keras) or weights that are not
            finite.

    Example:
        >>> import scc_tf
        >>> plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
        >>> report = save_packed(scc_tf.self_compress(plain, initial_bit_depth=4), "/tmp/scc_tf_doctest.scc")
        >>> report.stored_bytes == Path("/tmp/scc_tf_doctest.scc").stat().st_size
        True
    """
    data, report = _pack(model)
    _check_same(model, _unpack(data, max_weights=sum(int(np.prod(w.shape)) for w in model.weights)))
    with atomic_path(path) as partial:
        partial.write_bytes(data)
    return report


def _check_same(model, restored):
    """Raise ValueError if a weight of the restored model differs in a bit."""
    pairs = [(_bits(a), _bits(b)) for a, b in zip(other_variables(model), other_variables(restored), strict=True)]
    for ours, theirs in zip(self_compressing_layers(model), self_compressing_layers(restored), strict=True):
        pairs += [(_bits(ours.quantized(n)), _bits(theirs.quantized(n))) for n in ours.kernel_names]
    if any(a != b for a, b in pairs):
        raise ValueError(f"Expected a model that its configuration restores. Received: {model.name!r}")


def _bits(values):
    array = keras.ops.convert_to_numpy(values)
    return array.shape, array.tobytes()


def _unpack(data, max_weights):
    architecture, tensors = unframe(data)
    model = unpack_architecture(architecture, max_weights)
    if not self_compressing_layers(model):
        raise ValueError(f"Expected a model with self-compressing layers. Received: {model.name!r} with none")
    read_tensors(Reader(tensors), model)
    return model


def load_packed(path, max_weights=2**28):
    """Read a model from a packed file.

    Classes other than those of Keras and of this library must be registered with Keras before. Only layers are
    restored; no code is taken from the file.

    Args:
        path: the file.
        max_weights: most weights that the model may have, bit depths and exponents included. A file that claims
            more is refused before they are allocated.

    Returns:
        `scc_tf.SelfCompressingModel`, not compiled. Its quantized kernels and all other weights are those of the
        saved model, bit for bit.

    Raises:
        ValueError: if the file is no packed model, damaged, of a later version, too large, or names an unknown
            class.
        OSError: if there is no such file, or it cannot be read.

    Example:
        >>> import scc_tf
        >>> plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
        >>> _ = save_packed(scc_tf.self_compress(plain, initial_bit_depth=4), "/tmp/scc_tf_doctest.scc")
        >>> load_packed("/tmp/scc_tf_doctest.scc").layers[-1].codes().numpy().tolist()
        [[7, 7], [7, 7], [7, 7]]
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"Expected a packed model, which is a file. Received: the folder {path}")
    try:
        return _unpack(path.read_bytes(), max_weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
