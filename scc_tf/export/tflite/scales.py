"""Scales that change places: from a filter's inputs to the activation, and from the activation to the filter.

Both leave the function and the learned integers as they are.

- A batch normalization before a Dense layer is folded by the converter into the layer's inputs, which one scale per
  channel cannot express: `move_scales` puts it back on the activation, as one MUL.
- A batch normalization behind a ReLU stays a MUL by a positive number per channel. Since ``s * relu(x) =
  relu(s * x)`` for ``s > 0``, it becomes part of the filter's scales. That saves the MUL, and int8 activations,
  which have one scale for all channels, no longer lose the channels with small activations.
"""

import numpy as np

from scc_tf.export.tflite.flatbuffer import (
    add_constant,
    add_operator,
    add_tensor,
    array_of,
    index_of,
    opcode_name,
    replace_input,
    schema,
    takers_of_filter,
)
from scc_tf.export.tflite.matching import as_tensor

__all__ = ["find_output_scales", "move_scales"]

_FLOAT32 = schema.TensorType.FLOAT32
_HOMOGENEOUS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
_BIAS = {"TRANSPOSE_CONV": 3}  # place of the bias among the inputs; 2 otherwise


def find_output_scales(model, filters):
    """Fill in ``output_scale`` of the filters whose output is only multiplied by a positive constant per channel.

    Args:
        model: ``ModelT``.
        filters: list of `Filter`, changed in place.
    """
    graph = model.subgraphs[0]
    for item in filters:
        takers = takers_of_filter(graph, index_of(graph, item.tensor))
        multiplication = _multiplication(model, graph.operators[takers[0]]) if len(takers) == 1 else None
        if multiplication is not None:
            factor = np.broadcast_to(multiplication[1], len(item.weights))
            item.output_scale = factor.astype(np.float64) if (factor > 0).all() else None


def _multiplication(model, operator):
    """The MUL behind an operator and its factors ``(C,)`` or ``(1,)``, or None if more happens to the output."""
    graph, output = model.subgraphs[0], operator.outputs[0]
    readers = [op for op in graph.operators if op.inputs is not None and output in op.inputs]
    if len(readers) != 1 or output in graph.outputs or opcode_name(model, readers[0]) != "MUL":
        return None
    if not (_activation(operator) in _HOMOGENEOUS and _activation(readers[0]) == _HOMOGENEOUS[0]):
        return None
    other = next((i for i in readers[0].inputs if i != output), output)
    factor = array_of(model, graph.tensors[other])
    channels = graph.tensors[output].shape[-1]
    if factor is None or factor.size not in (1, channels) or factor.shape[-1:] not in ((), (factor.size,)):
        return None
    return readers[0], factor.reshape(-1)


def _activation(operator):
    return getattr(operator.builtinOptions, "fusedActivationFunction", None)


def move_scales(model, stored):
    """Let the filter hold exactly the stored weights as float32, and its neighbours what else was in it; in place.

    Args:
        model: ``ModelT`` whose tensors have different names.
        stored: `Stored`; the tensor of its filter's name is a new one afterwards.
    """
    graph, item = model.subgraphs[0], stored.filter
    old = index_of(graph, item.tensor)
    shape = graph.tensors[old].shape
    graph.tensors[old].name = f"{item.tensor}/converted".encode()
    data = np.ascontiguousarray(as_tensor(stored.floats, item.op, shape), np.float32).tobytes()
    new = add_constant(model, graph, item.tensor, shape, _FLOAT32, data)
    takers = [graph.operators[place] for place in takers_of_filter(graph, old)]
    for operator in takers:
        replace_input(operator, 1, new)
        if item.input_scale is not None:
            _multiply_input(model, operator, item)
    if item.output_scale is not None and stored.scale is not None:
        _absorb_multiplication(model, takers[0], item)


def _multiply_input(model, operator, item):
    graph = model.subgraphs[0]
    name, activation = f"{item.tensor}/input{len(graph.tensors)}", int(operator.inputs[0])
    factors = item.input_scale.astype(np.float32)
    factor = add_constant(model, graph, f"{name}/factor", factors.shape, _FLOAT32, factors.tobytes())
    scaled = add_tensor(graph, name, graph.tensors[activation].shape, _FLOAT32)
    place = graph.operators.index(operator)
    add_operator(model, graph, place, "MUL", [activation, factor], [scaled], schema.MulOptionsT())
    replace_input(operator, 0, scaled)


def _absorb_multiplication(model, operator, item):
    """Drop the MUL behind an operator whose filter has its factors already; the bias takes them too."""
    graph = model.subgraphs[0]
    multiplication, factor = _multiplication(model, operator)
    operator.outputs = multiplication.outputs
    graph.operators.remove(multiplication)
    place = _BIAS.get(item.op, 2)
    if len(operator.inputs) > place and operator.inputs[place] >= 0:
        bias = array_of(model, graph.tensors[operator.inputs[place]]) * factor
        name = f"{item.tensor}/bias{len(graph.tensors)}"
        index = add_constant(model, graph, name, bias.shape, _FLOAT32, bias.astype(np.float32).tobytes())
        replace_input(operator, place, index)
