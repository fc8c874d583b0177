"""Scales that change places: from a filter's inputs to the activation, and from the activation to the filter.

Both leave the function and the learned integers as they are.

- A batch normalization before a Dense layer is folded by the converter into the layer's inputs, which one scale per
  channel cannot express: `move_scales` puts it back on the activation, as one MUL.
- A batch normalization behind a ReLU stays a MUL by a positive number per channel. Since ``s * relu(x) =
  relu(s * x)`` for ``s > 0``, it becomes part of the filter's scales. That saves the MUL, and int8 activations,
  which have one scale for all channels, no longer lose the channels with small activations.
"""

import numpy as np

from scc_tf.export.tflite.flatbuffer import indices, options, schema
from scc_tf.export.tflite.matching import as_tensor

__all__ = ["find_output_scales", "move_scales"]

_HOMOGENEOUS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
_BIAS = {"TRANSPOSE_CONV": 3}  # place of the bias among the inputs; 2 otherwise


def find_output_scales(file, filters):
    """Fill in ``output_scale`` of the filters whose output is only multiplied by a positive constant per channel."""
    for item in filters:
        takers = file.readers(file.index(item.tensor), which=1)
        multiplication = _multiplication(file, takers[0]) if len(takers) == 1 else None
        if multiplication is not None:
            factor = np.broadcast_to(multiplication[1], len(item.weights))
            item.output_scale = factor.astype(np.float64) if (factor > 0).all() else None


def _multiplication(file, operator):
    """The MUL behind an operator and its factors ``(C,)`` or ``(1,)``, or None if more happens to the output."""
    output = int(operator.outputs[0])
    readers = file.readers(output)
    if len(readers) != 1 or output in file.graph.outputs or file.op(readers[0]) != "MUL":
        return None
    if not (_activation(operator) in _HOMOGENEOUS and _activation(readers[0]) == _HOMOGENEOUS[0]):
        return None
    factor = file.array(next((i for i in indices(readers[0].inputs) if i != output), output))
    channels = file.graph.tensors[output].shape[-1]
    if factor is None or factor.size not in (1, channels) or factor.shape[-1:] not in ((), (factor.size,)):
        return None
    return readers[0], factor.reshape(-1)


def _activation(operator):
    return getattr(operator.builtinOptions, "fusedActivationFunction", None)


def move_scales(file, stored):
    """Let the filter of a `Stored` hold exactly its weights as float32, and the neighbours what else was in it."""
    item = stored.filter
    old = file.index(item.tensor)
    file.graph.tensors[old].name = f"{item.tensor}/converted".encode()
    new = file.constant(item.tensor, as_tensor(stored.floats, item.op, file.graph.tensors[old].shape))
    takers = file.readers(old, which=1)
    for operator in takers:
        file.replace_input(operator, 1, new)
        if item.input_scale is not None:
            _multiply_input(file, operator, item)
    if item.output_scale is not None and stored.scale is not None:
        _absorb_multiplication(file, takers[0], item)


def _multiply_input(file, operator, item):
    name, activation = f"{item.tensor}/input{len(file.graph.tensors)}", int(operator.inputs[0])
    factor = file.constant(f"{name}/factor", item.input_scale)
    scaled = file.tensor(name, file.graph.tensors[activation].shape)
    file.insert(file.graph.operators.index(operator), "MUL", [activation, factor], [scaled], options("Mul"))
    file.replace_input(operator, 0, scaled)


def _absorb_multiplication(file, operator, item):
    """Drop the MUL behind an operator whose filter has its factors already; the bias takes them too."""
    multiplication, factor = _multiplication(file, operator)
    operator.outputs = multiplication.outputs
    file.graph.operators.remove(multiplication)
    place = _BIAS.get(item.op, 2)
    if len(operator.inputs) > place and operator.inputs[place] >= 0:
        bias = file.array(operator.inputs[place]) * factor
        file.replace_input(operator, place, file.constant(f"{item.tensor}/bias{len(file.graph.tensors)}", bias))
