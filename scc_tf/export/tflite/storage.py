"""How a learned kernel is stored, decided filter by filter, and the rewriting of the file that does it.

Two forms keep the learned integers ``q``, with one scale per channel and zero point 0: *raw*, where the operator
takes the integers and scales its activations at run time or by calibration, and *behind DEQUANTIZE*, where the
interpreter turns them into float32 once, as it loads the model. What fits neither int4 nor int8 stays a float.
"""

import dataclasses

import numpy as np

from scc_tf.export.tflite.flatbuffer import TFLiteFile, options, schema, tensor_type
from scc_tf.export.tflite.matching import Filter, as_tensor, channel_axis

__all__ = ["RAW_OPS", "STORAGES", "Stored", "decide", "verify", "write"]

STORAGES = ("int8", "auto", "int4", "float32")
RAW_OPS = {  # whose kernels compute with integer weights of one scale per channel
    "float": (),
    "dynamic": ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"),
    "int8": ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "DEPTHWISE_CONV_2D"),
}
_RAW_INT4 = {"auto": ("FULLY_CONNECTED",), "int4": ("FULLY_CONNECTED", "CONV_2D")}
_BITS = {"int4": 4, "int8": 8, "float16": 16, "float32": 32}
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # integer kernels refuse a scale below, and with it the model


@dataclasses.dataclass(eq=False)
class Stored:
    """The decision for one filter.

    Attributes:
        filter: the `Filter`.
        type: ``"int4"``, ``"int8"``, ``"float16"`` or ``"float32"``.
        raw: whether the operator takes the integers as they are.
        values: what is stored, matrix ``(C, n)``: int8 integers (int4 too), float16, or None for untouched float32.
        scale: float32 ``(C,)``, or None for floats.
        reason: why it is not the learned integers in the form that was asked for; "" if it is.
    """

    filter: Filter
    type: str
    raw: bool = False
    values: np.ndarray | None = None
    scale: np.ndarray | None = None
    reason: str = ""

    @property
    def floats(self):
        """The stored weights as the interpreter unpacks them, float32 ``(C, n)``."""
        return self.values.astype(np.float32) * (1 if self.scale is None else self.scale[:, None])

    @property
    def bytes(self):
        """Length of the stored weights, bytes, without scales."""
        return (self.filter.weights.size * _BITS[self.type] + 7) // 8


def decide(item, compute, storage):
    """Choose how to store a `Filter`; returns `Stored`. The other arguments are those of `scc_tf.export_tflite`."""
    if storage == "float32":
        return Stored(item, "float32")
    if item.kernel is None:
        return Stored(item, "float32", reason="a constant that is no kernel of the model times a scale per channel")
    if item.codes is None:
        return Stored(item, "float32", reason="its layer is not self-compressing")
    signed = item.scale if item.output_scale is None else item.scale * item.output_scale
    if problem := _unusable(signed):
        return Stored(item, "float32", reason=problem)
    codes = item.codes * np.where(signed < 0, -1, 1)[:, None]
    scale, takes_integers = _storable(np.abs(signed)), item.op in RAW_OPS[compute]
    if takes_integers and np.abs(codes).max() <= 127:
        narrow = np.abs(codes).max() <= 7 and item.op in _RAW_INT4.get(storage, ())
        return Stored(item, "int4" if narrow else "int8", True, codes.astype(np.int8), scale)
    reason = _has_128(codes) if takes_integers else ""
    if _within(codes, 8) and storage == "int4" and compute == "float":
        return Stored(item, "int4", False, codes.astype(np.int8), scale)
    if _within(codes, 128):
        return Stored(item, "int8", False, codes.astype(np.int8), scale, reason)
    if _within(item.codes, 128):  # a negated -128: the sign goes to the scale, which DEQUANTIZE takes
        return Stored(item, "int8", False, item.codes.astype(np.int8), _storable(signed), reason)
    return _as_float(item)


def _within(codes, half):
    return bool(codes.min() >= -half and codes.max() < half)


def _has_128(codes):
    channels = np.count_nonzero((np.abs(codes) == 128).any(axis=1))
    return (
        f"-128 in {channels} of {len(codes)} channels, which integer kernels may not hold: computed in float "
        "(a bit depth of at most 7.99 never has it)"
    )


def _unusable(scale):
    live = np.abs(scale[scale != 0])
    if (live < _SMALLEST_SCALE).any() or (live > np.finfo(np.float32).max).any():
        return f"a channel's scale is no normal float32: {live.min():.3g} to {live.max():.3g}"
    return ""


def _storable(scale):
    """Float32 scales; a channel of zeros, which has none, gets the largest of the others, or 1.

    It must be a usable number, and in int8 compute the bias of such a channel is rounded to a multiple of it.
    """
    live = np.abs(scale[scale != 0])
    return np.where(scale != 0, scale, live.max() if live.size else 1.0).astype(np.float32)


def _as_float(item):
    """Float16 if it holds every weight exactly, else float32 as converted."""
    span = f"codes {item.codes.min()} to {item.codes.max()} do not fit int8"
    weights = item.weights if item.input_scale is None else (item.scale[:, None] * item.codes).astype(np.float32)
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16)
    if (half.astype(np.float32) == weights).all():
        return Stored(item, "float16", False, half, reason=f"{span}: float16, which holds them exactly")
    return Stored(item, "float32", reason=f"{span}, and float16 does not hold the weights exactly")


def write(file, stored):
    """Replace a filter of a `TFLiteFile` by its stored form; returns the name of the tensor that holds the values."""
    item = stored.filter
    old = file.index(item.tensor)
    shape, name = file.graph.tensors[old].shape, f"{item.tensor}/{stored.type}"
    values = as_tensor(stored.values, item.op, shape)
    new = constant = file.constant(name, values, tensor_type(stored.type), _quantization(stored))
    takers = file.readers(old, which=1)
    if not stored.raw:
        new = file.tensor(f"{name}/unpacked", shape)
        file.insert(file.graph.operators.index(takers[0]), "DEQUANTIZE", [constant], [new], options("Dequantize"))
    for operator in takers:
        file.replace_input(operator, 1, new)
        if stored.raw and item.op == "FULLY_CONNECTED":
            operator.builtinOptions.asymmetricQuantizeInputs = True
    return name


def _quantization(stored):
    if stored.scale is None:
        return None
    quantization = schema.QuantizationParametersT()
    quantization.scale = stored.scale
    quantization.zeroPoint = np.zeros(len(stored.scale), np.int64)
    quantization.quantizedDimension = channel_axis(stored.filter.op)
    return quantization


def verify(data, expected):
    """Unpack the bytes of a file and compare with pairs ``(tensor index, Stored)``; a RuntimeError if a bit differs."""
    file = TFLiteFile(data)
    for index, stored in expected:
        tensor, wanted = file.graph.tensors[index], _quantization(stored)
        same = {"values": np.array_equal(file.array(index), as_tensor(stored.values, stored.filter.op, tensor.shape))}
        same["type"] = tensor.type == tensor_type(stored.type)
        for field in ("scale", "zeroPoint", "quantizedDimension") if wanted else ():
            same[field] = np.array_equal(getattr(tensor.quantization, field, None), getattr(wanted, field))
        if wrong := [name for name, equal in same.items() if not equal]:
            raise RuntimeError(f"The file does not hold kernel {stored.filter} as learned: another {wrong[0]}")
