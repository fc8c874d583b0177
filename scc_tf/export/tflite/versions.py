"""Operator versions: an interpreter that is too old must refuse a file rather than compute something else.

With version 1 throughout, tflite-runtime 2.14 computed wrong numbers from per-channel FULLY_CONNECTED weights; with
the right one it says that it does not know the operator.

Source: ``GetBuiltinOperatorVersion`` in LiteRT's ``op_version.cc``; FULLY_CONNECTED and CONV_2D with int4 weights
and float activations, which it does not list, get the versions that brought those kernels.
"""

from scc_tf.export.tflite.flatbuffer import opcode_name, schema, set_versions_by

__all__ = ["set_versions"]

_FLOAT32, _INT8, _INT4 = schema.TensorType.FLOAT32, schema.TensorType.INT8, schema.TensorType.INT4
_WEIGHTED = {  # by activation and weight type
    "CONV_2D": {(_FLOAT32, _INT8): 5, (_FLOAT32, _INT4): 7, (_INT8, _INT8): 3, (_INT8, _INT4): 7},
    "DEPTHWISE_CONV_2D": {(_FLOAT32, _INT8): 6, (_INT8, _INT8): 3, (_INT8, _INT4): 7},
    "FULLY_CONNECTED": {(_FLOAT32, _INT8): 12, (_FLOAT32, _INT4): 12, (_INT8, _INT8): 4, (_INT8, _INT4): 10},
    "TRANSPOSE_CONV": {(_FLOAT32, _INT8): 2, (_INT8, _INT8): 2},
}
_DEQUANTIZE = {schema.TensorType.FLOAT16: 3, _INT8: 5, _INT4: 6}
_INT8_ACTIVATIONS = dict.fromkeys(
    (
        *("ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "BATCH_TO_SPACE_ND", "CONCATENATION", "GATHER", "LOGISTIC"),
        *("MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "PACK", "PAD", "PADV2", "REDUCE_MAX"),
        *("REDUCE_MIN", "RELU", "RELU6", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SOFTMAX"),
        *("SPACE_TO_BATCH_ND", "STRIDED_SLICE", "SUB", "TANH", "TRANSPOSE", "UNPACK"),
    ),
    2,
) | {"MUL": 3}  # 3 where the scales rescale by 1 or more


def set_versions(model):
    """Raise the version of every operator to what its types need, in place.

    Args:
        model: ``ModelT``.
    """
    set_versions_by(model, _version)


def _version(model, graph, operator):
    code = model.operatorCodes[operator.opcodeIndex]
    inputs = operator.inputs if operator.inputs is not None else ()
    return max(code.version, _needed(opcode_name(model, operator), [graph.tensors[i] for i in inputs if i >= 0]))


def _needed(name, inputs):
    types = [tensor.type for tensor in inputs]
    if name in _WEIGHTED:
        activation = types[2] if name == "TRANSPOSE_CONV" else types[0]
        return _WEIGHTED[name].get((activation, types[1]), 1)
    if name == "DEQUANTIZE":
        per_tensor = types[0] == _INT8 and len(inputs[0].quantization.scale) == 1
        return 2 if per_tensor else _DEQUANTIZE.get(types[0], 1)
    if types and types[0] == _INT8:
        return _INT8_ACTIVATIONS.get(name, 1)
    return 1
