"""What int8 activations cost, measured one tensor at a time, and which of them had better stay float.

One scale holds for a whole tensor. Where few values are far out, such as the -1e9 of an attention mask or the factors
of a normalization over constant columns, the others are lost in its steps. No list of layers finds them all: each
tensor alone is rounded as the int8 file does it, in the float network, and the answers are compared.
"""

import numpy as np

from scc_tf.export.tflite.answers import answers_of_file, likeness
from scc_tf.export.tflite.flatbuffer import (
    add_constant,
    add_operator,
    add_tensor,
    array_of,
    index_of,
    pack,
    read,
    replace_input,
    schema,
)

__all__ = ["activation_costs", "operators_at", "too_costly"]

_FLOAT32, _INT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8


def activation_costs(float_model, quantized, samples):
    """Squared error of the answers that each int8 tensor causes alone.

    Args:
        float_model: ``ModelT`` with float weights and activations; every tensor has a name of its own.
        quantized: the same with int8 activations; tensors have the same names.
        samples: ``{name: array (N, …)}``, the inputs.

    Returns:
        ``{tensor name: squared error}``, in units of the spread of the answers; infinite where they are no numbers.
    """
    data = pack(float_model)
    floats = {t.name.decode() for t in float_model.subgraphs[0].tensors if t.type == _FLOAT32}
    expected, costs = [*answers_of_file(data, samples).values()], {}
    for tensor in quantized.subgraphs[0].tensors:
        name = tensor.name.decode().removesuffix("_quantized")
        if tensor.type == _INT8 and name in floats and name not in costs:
            answers = answers_of_file(_rounded_at(data, name, tensor.quantization), samples)
            costs[name] = likeness([*answers.values()], expected).error ** 2
    return costs


def too_costly(costs, bound):
    """The fewest tensors without which the errors of the others, which add up in squares, stay within a bound."""
    total, cheap = 0.0, set()
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        total += cost
        if not total <= bound**2:
            break
        cheap.add(name)
    return set(costs) - cheap


def operators_at(model, tensors):
    """The operators of the main graph that take or make one of these tensors: the names of their first outputs."""
    graph = model.subgraphs[0]
    wanted = {index for index, tensor in enumerate(graph.tensors) if tensor.name.decode() in tensors}
    return {
        graph.tensors[operator.outputs[0]].name.decode()
        for operator in graph.operators
        if wanted & {*_indices(operator.inputs), *_indices(operator.outputs)}
    }


def _indices(indices):
    return () if indices is None else [int(index) for index in indices]


def _rounded_at(data, name, quantization):
    """The file of a float model in which one tensor is rounded to int8 and back."""
    model = read(data)
    graph = model.subgraphs[0]
    index = index_of(graph, name)
    shape, values = graph.tensors[index].shape, array_of(model, graph.tensors[index])
    if values is not None:
        _replace(graph, index, _constant(model, graph, name, values, quantization))
        return pack(model)
    codes = add_tensor(graph, f"{name}/codes", shape, _INT8, quantization)
    other = add_tensor(graph, f"{name}/other", shape, _FLOAT32)
    makers = [place for place, op in enumerate(graph.operators) if index in _indices(op.outputs)]
    if makers:  # its maker writes elsewhere, and who reads it gets the rounded values
        maker = graph.operators[makers[0]]
        maker.outputs = np.array([other if i == index else i for i in maker.outputs], np.int32)
        before, after, place = other, index, makers[0] + 1
    else:  # an input of the model
        _replace(graph, index, other)
        before, after, place = index, other, 0
    add_operator(model, graph, place, "QUANTIZE", [before], [codes], schema.QuantizeOptionsT())
    add_operator(model, graph, place + 1, "DEQUANTIZE", [codes], [after], schema.DequantizeOptionsT())
    return pack(model)


def _constant(model, graph, name, values, quantization):
    scale, zero = np.float32(quantization.scale[0]), int(quantization.zeroPoint[0])
    rounded = (np.clip(np.rint(values / scale) + zero, -128, 127) - zero) * scale
    return add_constant(model, graph, f"{name}/rounded", values.shape, _FLOAT32, rounded.astype("<f4").tobytes())


def _replace(graph, old, new):
    """Let every operator that reads a tensor read another one."""
    for operator in graph.operators:
        for which, index in enumerate(_indices(operator.inputs)):
            if index == old:
                replace_input(operator, which, new)
