"""Operators that an interpreter computes faster in another form; what they compute stays the same.

LiteRT runs float32 through XNNPACK, which computes sixteen channels of a convolution at a time with AVX-512, eight with
AVX2 or NEON: a convolution with fewer filters takes as long as a full one. And it leaves pooling over a single pixel to
slower code outside, which also splits the network into parts.
"""

import numpy as np

from scc_tf.export.tflite.flatbuffer import (
    add_constant,
    add_operator,
    add_tensor,
    array_of,
    opcode_name,
    replace_input,
    schema,
)

__all__ = ["fill_lanes", "replace_unit_pools"]

_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")


def replace_unit_pools(model):
    """Let a depthwise convolution with ones take the pixels that a pooling over one pixel takes, in place.

    Such a pooling, with strides, is how the shortcut of a residual network without weights skips pixels.

    Args:
        model: ``ModelT`` with float32 activations.
    """
    graph = model.subgraphs[0]
    for place, operator in enumerate(graph.operators):
        pool = operator.builtinOptions
        if (
            opcode_name(model, operator) not in _POOLS
            or (pool.filterWidth, pool.filterHeight) != (1, 1)
            or graph.tensors[operator.inputs[0]].type != schema.TensorType.FLOAT32
        ):
            continue
        channels = int(graph.tensors[operator.inputs[0]].shape[-1])
        name = graph.tensors[operator.outputs[0]].name.decode()
        ones = _constant(model, f"{name}/ones", np.ones((1, 1, 1, channels)))
        zeros = _constant(model, f"{name}/zeros", np.zeros(channels))
        options = schema.DepthwiseConv2DOptionsT()
        for field in ("padding", "strideW", "strideH", "fusedActivationFunction"):
            setattr(options, field, getattr(pool, field))
        options.depthMultiplier = options.dilationWFactor = options.dilationHFactor = 1
        del graph.operators[place]
        inputs = [operator.inputs[0], ones, zeros]
        add_operator(model, graph, place, "DEPTHWISE_CONV_2D", inputs, operator.outputs, options)


def fill_lanes(model, lanes):
    """Let convolutions with few filters compute neighbouring pixels of a row as if they were channels, in place.

    With ``p`` pixels at once, ``f`` filters of width ``w`` become ``p f`` filters of width ``w + p - 1`` whose stride
    is ``p``: each is the filter of one of the pixels, with zeros beside it. The rows of the output are the same numbers
    in the same order. Where all lanes of a vector take the time of one, it takes ``(w + p - 1) / (w p)`` of the time.

    Args:
        model: ``ModelT`` with float32 kernels.
        lanes: float32 numbers in a vector of the processor.
    """
    graph = model.subgraphs[0]
    for place in reversed(range(len(graph.operators))):  # what is inserted lies behind
        operator = graph.operators[place]
        if opcode_name(model, operator) != "CONV_2D":
            continue
        data, *constants = (graph.tensors[index] for index in operator.inputs if index >= 0)
        arrays = [array_of(model, tensor) for tensor in constants]
        if len(arrays) != 2 or any(array is None or array.dtype != np.float32 for array in arrays):
            continue
        weights, bias = arrays
        adjacent = (operator.builtinOptions.strideW, operator.builtinOptions.dilationWFactor) == (1, 1)
        grouped = weights.shape[3] != data.shape[3]
        if not adjacent or grouped or weights.shape[2] == 1:  # filters that are one pixel wide gain nothing
            continue
        pixels = _pixels(int(graph.tensors[operator.outputs[0]].shape[2]), lanes // len(weights))
        if pixels > 1:
            _join_pixels(model, place, weights, bias, pixels)


def _join_pixels(model, place, weights, bias, pixels):
    graph = model.subgraphs[0]
    operator = graph.operators[place]
    output = graph.tensors[operator.outputs[0]]
    name, shape = output.name.decode(), np.array(output.shape, np.int32)
    filters, height, width, inputs = weights.shape
    wide = np.zeros((pixels, filters, height, width + pixels - 1, inputs))
    for pixel in range(pixels):
        wide[pixel, :, :, pixel : pixel + width] = weights
    replace_input(operator, 1, _constant(model, f"{name}/kernel", wide.reshape(-1, *wide.shape[2:])))
    replace_input(operator, 2, _constant(model, f"{name}/bias", np.tile(bias, pixels)))
    operator.builtinOptions.strideW = pixels
    joined = shape // [1, 1, pixels, 1] * [1, 1, 1, pixels]
    together = add_tensor(graph, f"{name}/pixels", joined, schema.TensorType.FLOAT32)
    apart, operator.outputs = operator.outputs, np.array([together], np.int32)
    target = add_constant(model, graph, f"{name}/shape", [4], schema.TensorType.INT32, shape.astype("<i4").tobytes())
    options = schema.ReshapeOptionsT()
    options.newShape = shape
    add_operator(model, graph, place + 1, "RESHAPE", [together, target], apart, options)


def _pixels(columns, most):
    """The largest number up to ``most`` that divides the columns."""
    return max((pixels for pixels in range(1, most + 1) if columns % pixels == 0), default=1)


def _constant(model, name, values):
    data = values.astype("<f4").tobytes()
    return add_constant(model, model.subgraphs[0], name, values.shape, schema.TensorType.FLOAT32, data)
