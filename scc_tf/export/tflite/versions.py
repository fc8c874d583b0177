"""Operator versions: an interpreter that is too old must refuse a file rather than compute something else.

With version 1 throughout, tflite-runtime 2.14 computed wrong numbers from per-channel FULLY_CONNECTED weights; with
the right one it says that it does not know the operator.

Source: ``GetBuiltinOperatorVersion`` in LiteRT's ``op_version.cc``; FULLY_CONNECTED and CONV_2D with int4 weights
and float activations, which it does not list, get the versions that brought those kernels.
"""

import copy

from scc_tf.export.tflite.flatbuffer import FLOAT32, INT8, indices, tensor_type

__all__ = ["set_versions"]

_INT4 = tensor_type("int4")
_WEIGHTED = {  # by activation and weight type
    "CONV_2D": {(FLOAT32, INT8): 5, (FLOAT32, _INT4): 7, (INT8, INT8): 3, (INT8, _INT4): 7},
    "DEPTHWISE_CONV_2D": {(FLOAT32, INT8): 6, (INT8, INT8): 3, (INT8, _INT4): 7},
    "FULLY_CONNECTED": {(FLOAT32, INT8): 12, (FLOAT32, _INT4): 12, (INT8, INT8): 4, (INT8, _INT4): 10},
    "TRANSPOSE_CONV": {(FLOAT32, INT8): 2, (INT8, INT8): 2},
}
_DEQUANTIZE = {tensor_type("float16"): 3, INT8: 5, _INT4: 6}
_INT8_ACTIVATIONS = dict.fromkeys(
    (
        *("ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "BATCH_TO_SPACE_ND", "CONCATENATION", "GATHER", "LOGISTIC"),
        *("MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "PACK", "PAD", "PADV2", "REDUCE_MAX"),
        *("REDUCE_MIN", "RELU", "RELU6", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SOFTMAX"),
        *("SPACE_TO_BATCH_ND", "STRIDED_SLICE", "SUB", "TANH", "TRANSPOSE", "UNPACK"),
    ),
    2,
) | {"MUL": 3}  # 3 where the scales rescale by 1 or more


def set_versions(file):
    """Raise the version of every operator of a `TFLiteFile` to what its types need; `strip` merges equal codes."""
    codes = []
    for graph in file.model.subgraphs:
        for operator in graph.operators:
            inputs = [graph.tensors[i] for i in indices(operator.inputs) if i >= 0]
            codes.append(copy.copy(file.model.operatorCodes[operator.opcodeIndex]))
            codes[-1].version = max(codes[-1].version, _needed(file.op(operator), inputs))
    operators = (operator for graph in file.model.subgraphs for operator in graph.operators)
    for place, operator in enumerate(operators):
        operator.opcodeIndex = place
    file.model.operatorCodes = codes


def _needed(name, inputs):
    types = [tensor.type for tensor in inputs]
    if name in _WEIGHTED:
        return _WEIGHTED[name].get((types[2 if name == "TRANSPOSE_CONV" else 0], types[1]), 1)
    if name == "DEQUANTIZE":
        per_tensor = types[0] == INT8 and len(inputs[0].quantization.scale) == 1
        return 2 if per_tensor else _DEQUANTIZE.get(types[0], 1)
    return _INT8_ACTIVATIONS.get(name, 1) if INT8 in types[:1] else 1
