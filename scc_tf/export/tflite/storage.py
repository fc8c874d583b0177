"""How a learned kernel is stored, decided filter by filter, and the rewriting of the graph that does it.

Two forms keep the learned integers ``q``, with one scale per channel and zero point 0: *raw*, where the operator
takes the integers and scales its activations at run time or by calibration, and *behind DEQUANTIZE*, where the
interpreter turns them into float32 once, as it loads the model. What fits neither int4 nor int8 stays a float.
"""

import dataclasses

import numpy as np

from scc_tf.export.tflite.flatbuffer import (
    add_constant,
    add_operator,
    add_tensor,
    index_of,
    replace_input,
    schema,
    takers_of_filter,
)
from scc_tf.export.tflite.matching import Filter, as_tensor, channel_axis

__all__ = ["RAW_OPS", "STORAGES", "Stored", "decide", "pack_int4", "unpack_int4", "write"]

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
    """Choose how to store a filter.

    Args:
        item: `Filter`, matched.
        compute: ``"float"``, ``"dynamic"`` or ``"int8"``.
        storage: one of `STORAGES`.

    Returns:
        `Stored`.
    """
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
    scale = _storable(np.abs(signed))
    if item.op in RAW_OPS[compute] and np.abs(codes).max() <= 127:
        narrow = np.abs(codes).max() <= 7 and item.op in _RAW_INT4.get(storage, ())
        return Stored(item, "int4" if narrow else "int8", True, codes.astype(np.int8), scale)
    reason = _has_128(codes) if item.op in RAW_OPS[compute] else ""
    if _within(codes, 8) and storage == "int4" and compute == "float":
        return Stored(item, "int4", False, codes.astype(np.int8), scale)
    if _within(codes, 128):
        return Stored(item, "int8", False, codes.astype(np.int8), scale, reason)
    if _within(item.codes, 128):  # a negated -128: the sign goes to the scale, which DEQUANTIZE takes
        return Stored(item, "int8", False, item.codes.astype(np.int8), _storable(signed), reason)
    return _as_float(item)


def _has_128(codes):
    """Why a kernel whose codes fit int8 is computed in float all the same."""
    channels = np.count_nonzero((np.abs(codes) == 128).any(axis=1))
    return (
        f"-128 in {channels} of {len(codes)} channels, which integer kernels may not hold: computed in float "
        "(a bit depth of at most 7.99 never has it)"
    )


def _within(codes, half):
    return bool(codes.min() >= -half and codes.max() < half)


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


def pack_int4(integers):
    """Bytes of integers in [-8, 7], two in each, the first in the low half.

    Args:
        integers: int8 array; read in C order.

    Returns:
        uint8 ``(ceil(N / 2),)``.

    Example:
        >>> import numpy as np
        >>> pack_int4(np.int8([1, -1, 7])).tolist()
        [241, 7]
    """
    halves = integers.reshape(-1).astype(np.uint8) & 15
    halves = np.append(halves, np.zeros(halves.size % 2, np.uint8))
    return halves[0::2] | (halves[1::2] << 4)


def unpack_int4(data, count):
    """The first ``count`` integers of `pack_int4`'s bytes, int8 ``(count,)``.

    Example:
        >>> import numpy as np
        >>> unpack_int4(np.uint8([241, 7]), 3).tolist()
        [1, -1, 7]
    """
    halves = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)


def _quantization(stored):
    if stored.scale is None:
        return None
    quantization = schema.QuantizationParametersT()
    quantization.scale = stored.scale
    quantization.zeroPoint = np.zeros(len(stored.scale), np.int64)
    quantization.quantizedDimension = channel_axis(stored.filter.op)
    return quantization


def write(model, stored):
    """Replace a filter by its stored form, in place.

    Args:
        model: ``ModelT`` whose tensors have different names.
        stored: `Stored` with values.

    Returns:
        Name of the tensor that holds the stored values.
    """
    graph, item = model.subgraphs[0], stored.filter
    old = index_of(graph, item.tensor)
    shape, name = graph.tensors[old].shape, f"{item.tensor}/{stored.type}"
    values = as_tensor(stored.values, item.op, shape)
    data = (pack_int4(values) if stored.type == "int4" else values).tobytes()
    tensor_type = getattr(schema.TensorType, stored.type.upper())
    new = constant = add_constant(model, graph, name, shape, tensor_type, data, _quantization(stored))
    takers = takers_of_filter(graph, old)
    if not stored.raw:
        new = add_tensor(graph, f"{name}/unpacked", shape, schema.TensorType.FLOAT32)
    for place in takers:
        replace_input(graph.operators[place], 1, new)
        if stored.raw and item.op == "FULLY_CONNECTED":
            graph.operators[place].builtinOptions.asymmetricQuantizeInputs = True
    if not stored.raw:
        add_operator(model, graph, takers[0], "DEQUANTIZE", [constant], [new], schema.DequantizeOptionsT())
    return name
