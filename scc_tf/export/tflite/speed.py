"""Operators that an interpreter computes faster in another form; what they compute stays the same.

LiteRT runs float32 through XNNPACK, which computes sixteen channels of a convolution at a time with AVX-512, eight with
AVX2 or NEON: a convolution with fewer filters takes as long as a full one. And it leaves pooling over a single pixel to
slower code outside, which also splits the network into parts.
"""

import numpy as np

from scc_tf.export.tflite.flatbuffer import FLOAT32, indices, options, tensor_type

__all__ = ["fill_lanes", "replace_unit_pools"]


def replace_unit_pools(file):
    """Let a depthwise convolution with ones take the pixels that a pooling over one pixel takes.

    Such a pooling, with strides, is how the shortcut of a residual network without weights skips pixels.
    """
    for place, operator in enumerate(file.graph.operators):
        if file.op(operator) not in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
            continue
        pool, data = operator.builtinOptions, file.graph.tensors[operator.inputs[0]]
        if (pool.filterWidth, pool.filterHeight) != (1, 1) or data.type != FLOAT32:
            continue
        channels, name = int(data.shape[-1]), file.name(operator.outputs[0])
        ones = file.constant(f"{name}/ones", np.ones((1, 1, 1, channels)))
        zeros = file.constant(f"{name}/zeros", np.zeros(channels))
        same = {field: getattr(pool, field) for field in ("padding", "strideW", "strideH", "fusedActivationFunction")}
        taken = options("DepthwiseConv2D", depthMultiplier=1, dilationWFactor=1, dilationHFactor=1, **same)
        del file.graph.operators[place]
        file.insert(place, "DEPTHWISE_CONV_2D", [operator.inputs[0], ones, zeros], operator.outputs, taken)


def fill_lanes(file, lanes):
    """Let convolutions with few filters compute neighbouring pixels of a row as if they were channels.

    With ``p`` pixels at once, ``f`` filters of width ``w`` become ``p f`` filters of width ``w + p - 1`` whose stride
    is ``p``: each is the filter of one of the pixels, with zeros beside it. The rows of the output are the same numbers
    in the same order. Where all lanes of a vector take the time of one, it takes ``(w + p - 1) / (w p)`` of the time.
    """
    for place in reversed(range(len(file.graph.operators))):  # what is inserted lies behind
        operator = file.graph.operators[place]
        if file.op(operator) != "CONV_2D":
            continue
        data, *constants = indices(operator.inputs)
        arrays = [file.array(index) for index in constants if index >= 0]
        if len(arrays) != 2 or any(array is None or array.dtype != np.float32 for array in arrays):
            continue
        adjacent = (operator.builtinOptions.strideW, operator.builtinOptions.dilationWFactor) == (1, 1)
        grouped = arrays[0].shape[3] != file.graph.tensors[data].shape[3]
        if not adjacent or grouped or arrays[0].shape[2] == 1:  # filters that are one pixel wide gain nothing
            continue
        columns, most = int(file.graph.tensors[operator.outputs[0]].shape[2]), lanes // len(arrays[0])
        pixels = max((p for p in range(1, most + 1) if columns % p == 0), default=1)
        if pixels > 1:
            _join_pixels(file, place, *arrays, pixels)


def _join_pixels(file, place, weights, bias, pixels):
    operator = file.graph.operators[place]
    output = file.graph.tensors[operator.outputs[0]]
    name, shape = output.name.decode(), np.array(output.shape, np.int32)
    filters, height, width, inputs = weights.shape
    wide = np.zeros((pixels, filters, height, width + pixels - 1, inputs))
    for pixel in range(pixels):
        wide[pixel, :, :, pixel : pixel + width] = weights
    file.replace_input(operator, 1, file.constant(f"{name}/kernel", wide.reshape(-1, *wide.shape[2:])))
    file.replace_input(operator, 2, file.constant(f"{name}/bias", np.tile(bias, pixels)))
    operator.builtinOptions.strideW = pixels
    together = file.tensor(f"{name}/pixels", shape // [1, 1, pixels, 1] * [1, 1, 1, pixels])
    apart, operator.outputs = operator.outputs, np.array([together], np.int32)
    target = file.constant(f"{name}/shape", shape, tensor_type("int32"))
    file.insert(place + 1, "RESHAPE", [together, target], apart, options("Reshape", newShape=shape))
