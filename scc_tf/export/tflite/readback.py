"""What was written, read back: the integers and scales in the file's bytes are the learned ones, or an error."""

import numpy as np

from scc_tf.export.tflite.flatbuffer import read, schema
from scc_tf.export.tflite.matching import as_tensor, channel_axis
from scc_tf.export.tflite.storage import unpack_int4

__all__ = ["verify"]


def _integers(tensor, data, kind):
    if kind == "int4":
        return unpack_int4(data, int(np.prod(tensor.shape))).reshape(tensor.shape)
    return np.frombuffer(data.tobytes(), {"int8": np.int8, "float16": np.float16}[kind]).reshape(tensor.shape)


def _difference(tensor, data, stored):
    """What differs between a tensor of the file and what should be stored there, or ""."""
    if tensor.type != getattr(schema.TensorType, stored.type.upper()):
        return f"type {tensor.type}"
    if data is None:
        return "no data"
    found = _integers(tensor, data, stored.type)
    if not np.array_equal(found, as_tensor(stored.values, stored.filter.op, tensor.shape)):
        return "other values"
    if stored.scale is None:
        return ""
    quantization = tensor.quantization
    if quantization is None or not np.array_equal(quantization.scale, stored.scale):
        return "other scales"
    if np.any(quantization.zeroPoint) or len(quantization.zeroPoint) != len(stored.scale):
        return "other zero points"
    same = quantization.quantizedDimension == channel_axis(stored.filter.op)
    return "" if same else "another channel axis"


def verify(data, expected):
    """Unpack a file and compare.

    Args:
        data: bytes of the file.
        expected: pairs ``(tensor index, Stored)``.

    Raises:
        RuntimeError: if a stored kernel is not, bit for bit, what was to be written.
    """
    model = read(data)
    tensors = model.subgraphs[0].tensors
    for index, stored in expected:
        tensor = tensors[index]
        if difference := _difference(tensor, model.buffers[tensor.buffer].data, stored):
            raise RuntimeError(f"The file does not hold kernel {stored.filter.kernel} as learned: {difference}")
