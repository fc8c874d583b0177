"""What is in a file: ``.scc``, ``.keras`` or ``.tflite``."""

import dataclasses
import gzip
from pathlib import Path

import keras
import numpy as np

from scc_tf.arguments import check_path, received
from scc_tf.coding import entropy_bits
from scc_tf.export import load_packed
from scc_tf.keras_private import all_layers, own_variables
from scc_tf.layers import SelfCompressing
from scc_tf.reports import Report, Table

__all__ = ["FileReport", "inspect_file", "load_file"]


@dataclasses.dataclass(frozen=True)
class FileRow:
    """One weight of a network, or one constant of a TFLite file.

    Attributes:
        name: of the layer and the weight, or of the tensor.
        type: such as ``"float32"``, ``"int8"``; of a self-compressing kernel the bits of its widest channel.
        shape: sides.
        values: how many.
        nonzero: how many are not 0.
        entropy_bytes: what an ideal coder would need for the values, each by how often it occurs.
    """

    name: str
    type: str
    shape: tuple
    values: int
    nonzero: int
    entropy_bytes: float


@dataclasses.dataclass(frozen=True, repr=False)
class FileReport(Report):
    """What is in a file. ``print`` it for a table.

    Attributes:
        path: the file.
        stored_bytes: its length.
        gzip_bytes: under gzip.
        rows: one `FileRow` per weight, in the order of the file.
    """

    path: str
    stored_bytes: int
    gzip_bytes: int
    rows: tuple

    def parts(self):
        """One line for the file, a row for each weight."""
        values = sum(row.values for row in self.rows)
        yield f"{self.path}: {self.stored_bytes:,} bytes, {self.gzip_bytes:,} under gzip, {values:,} values"
        rows = [
            (
                row.name[-43:],
                row.type,
                "x".join(map(str, row.shape)) or "-",
                f"{row.nonzero / max(row.values, 1):.0%}",
                f"{row.entropy_bytes:,.0f}",
            )
            for row in self.rows
        ]
        yield Table("{:<44}{:>9}{:>18}{:>9}{:>12}", rows, ("weight", "type", "shape", "not 0", "entropy B"))


def load_file(path, compile=False):
    """The Keras model in a ``.scc``, ``.keras`` or ``.h5`` file, compiled as it was saved where ``compile`` is true.

    Raises:
        ValueError: if the suffix is another one, or as the reader of the file.
    """
    path = check_path("path", path, exists=True)
    if path.suffix == ".scc":
        return load_packed(path)
    if path.suffix in (".keras", ".h5"):
        try:
            return keras.models.load_model(path, compile=compile)
        except (TypeError, ValueError):  # a loss of the user's own is not known here
            if not compile:
                raise
            return keras.models.load_model(path, compile=False)
    raise ValueError(f"Expected path to end in .scc, .keras or .h5. {received('path', str(path))}")


def inspect_file(path):
    """Look into a file.

    Args:
        path: a ``.scc``, ``.keras``, ``.h5`` or ``.tflite`` file.

    Returns:
        `FileReport`.

    Raises:
        ValueError: if it is none, or damaged.
        FileNotFoundError: if there is no such file.
    """
    path = check_path("path", path, exists=True)
    rows = _of_tflite(path) if path.suffix == ".tflite" else _of_model(load_file(path))
    data = Path(path).read_bytes()
    return FileReport(str(path), len(data), len(gzip.compress(data, 9)), tuple(rows))


def _of_model(model):
    for layer in all_layers(model, include_self=False):
        formats = {fmt.name: fmt for fmt in layer.formats} if isinstance(layer, SelfCompressing) else {}
        hidden = {id(v) for fmt in formats.values() for v in (fmt.bit_depth, fmt.exponent)}
        for weight in own_variables(layer):
            if id(weight) in hidden or not keras.backend.is_float_dtype(weight.dtype):
                continue
            if weight.name in formats:
                codes = np.asarray(keras.ops.convert_to_numpy(layer.codes(weight.name)), np.int64)
                bits = int(np.ceil(np.max(keras.ops.convert_to_numpy(formats[weight.name].bit_depth), initial=0)))
                yield _row(f"{layer.name}/{weight.name}", f"{bits} bits", codes)
            else:
                values = np.asarray(keras.ops.convert_to_numpy(weight), np.float32)
                yield _row(f"{layer.name}/{weight.name}", str(weight.dtype), values)


def _of_tflite(path):
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(path))
        details = interpreter.get_tensor_details()
    except ValueError as error:
        raise ValueError(f"Expected a TFLite file. {received('path', str(path))}: {error}") from error
    for tensor in details:
        try:
            values = interpreter.get_tensor(tensor["index"])
        except ValueError:  # only constants have values before a run
            continue
        if values.size:
            yield _row(tensor["name"], np.dtype(tensor["dtype"]).name, values)


def _row(name, kind, values):
    return FileRow(
        name=name,
        type=kind,
        shape=tuple(map(int, values.shape)),
        values=int(values.size),
        nonzero=int(np.count_nonzero(values)),
        entropy_bytes=float(entropy_bits(np.unique(values, return_inverse=True)[1]) / 8),
    )
