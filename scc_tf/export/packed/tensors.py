"""All weights of a model in one stream: the codes of the kernels, their exponents, and every other variable.

The stream holds no names and no shapes; the architecture has those. In order:

1. the codes of every self-compressing kernel, and the exponents of the channels that have a code other than 0, exactly
   (`scc_tf.coding.kernels`; `scc_tf.coding.numbers.write_floats`: fixed point where that is exact);
2. the other variables, grouped by name and dtype (all biases, all moving means, …): float32 in one piece or variable
   by variable, whichever is shorter; other dtypes byte by byte.

Bit depths are not stored: on reading, a channel has the smallest that holds its codes, and 0 if all are 0; its
exponent is then 0 too. The latent kernel is the quantized one, save for the last bit where that would quantize to
another code.
"""

import math

import numpy as np
from keras import ops

from scc_tf.coding import Writer
from scc_tf.coding.kernels import read_kernels, write_kernels
from scc_tf.coding.numbers import read_floats, read_integers, write_floats, write_integers
from scc_tf.layers import Dense, DepthwiseConv2D, EinsumDense
from scc_tf.training import self_compressing_layers

__all__ = ["other_variables", "read_tensors", "write_tensors"]

_STEPS = 16  # units in the last place by which a latent weight may move


def _kernels(model):
    return [(layer, fmt) for layer in self_compressing_layers(model) for fmt in layer.formats]


def other_variables(model):
    """The variables besides the kernels, bit depths and exponents, each once."""
    known = {id(v) for layer, f in _kernels(model) for v in (getattr(layer, f.name), f.bit_depth, f.exponent)}
    return list({id(v): v for v in model.weights if id(v) not in known}.values())


def _layout(layer, fmt):
    """The shape ``(height, width, inputs, channels)`` in which the codes of a kernel are coded."""
    others = [fmt.kernel_shape[axis] for axis in fmt.other_axes]
    if isinstance(layer, Dense | EinsumDense):
        others = [math.prod(others)]
    elif isinstance(layer, DepthwiseConv2D) or fmt.name == "depthwise_kernel":
        others = [*others, 1]
    if len(others) > 3:
        others = [math.prod(others)]
    return (*[1] * (3 - len(others)), *others, fmt.channels)


def _codes(layer, fmt):
    """The codes, those that quantize to 0 being 0."""
    codes = ops.convert_to_numpy(layer.codes(fmt.name)).astype(np.int32)
    quantized = ops.convert_to_numpy(layer.quantized(fmt.name))
    if not np.isfinite(quantized).all():
        raise ValueError(
            f"Expected finite weights. Received: {fmt.name} of layer {layer.name!r} with weights that are not"
        )
    return np.where(quantized != 0, codes, 0)


def write_tensors(writer, model):
    """Write all weights of a model.

    Args:
        writer: `scc_tf.coding.Writer`.
        model: functional model with self-compressing layers.

    Returns:
        Bits per part: ``{"codes": …, "exponents": …, "other": …}``.

    Raises:
        ValueError: if a kernel is not finite.
    """
    kernels, exponents = [], []
    for layer, fmt in _kernels(model):
        codes = _codes(layer, fmt).transpose(fmt.other_axes + fmt.channel_axes).reshape(_layout(layer, fmt))
        kernels.append(codes)
        exponents.append(np.where(codes.any(axis=(0, 1, 2)), ops.convert_to_numpy(fmt.exponent), np.float32(0)))
    exponent_bits = write_kernels(writer, kernels, exponents)
    kernel_bits = writer.bits
    for group in _groups(model):
        _write_group(writer, [_array(v) for v in group])
    return {
        "codes": kernel_bits - exponent_bits,
        "exponents": exponent_bits,
        "other": writer.bits - kernel_bits,
    }


def read_tensors(reader, model):
    """Read what `write_tensors` wrote into a model of the same architecture.

    Args:
        reader: `scc_tf.coding.Reader`.
        model: the model; all its weights are assigned.

    Raises:
        ValueError: if the stream is damaged.
    """
    pairs = _kernels(model)
    kernels, exponents = read_kernels(reader, [_layout(layer, fmt) for layer, fmt in pairs])
    for (layer, fmt), codes, own in zip(pairs, kernels, exponents, strict=True):
        _assign_kernel(layer, fmt, codes, own)
    for group in _groups(model):
        _read_group(reader, group)
    reader.check_end()


def _assign_kernel(layer, fmt, codes, exponents):
    flat = codes.reshape(-1, fmt.channels)
    fmt.bit_depth.assign(_smallest_bit_depth(flat.min(axis=0), flat.max(axis=0)))
    fmt.exponent.assign(exponents)
    axes = fmt.other_axes + fmt.channel_axes
    codes = codes.reshape([fmt.kernel_shape[axis] for axis in axes]).transpose(np.argsort(axes))
    steps = ops.convert_to_numpy(ops.power(2.0, fmt.spread(fmt.exponent)))
    dtype = _array(getattr(layer, fmt.name)).dtype
    with np.errstate(over="ignore"):
        latent = (codes.astype(np.float32) * steps).astype(dtype)
    if not np.isfinite(latent).all():
        raise ValueError(f"Expected finite weights in layer {layer.name!r}. Received: a step of {steps.max()}")
    for _ in range(_STEPS):
        getattr(layer, fmt.name).assign(latent)
        missing = codes - ops.convert_to_numpy(layer.codes(fmt.name))
        if not missing.any():
            return
        towards = np.where(missing > 0, np.inf, -np.inf).astype(dtype)
        latent = np.where(missing, np.nextafter(latent, towards), latent)
    raise ValueError(f"Expected codes that a kernel can have in layer {layer.name!r}. Received: others")


def _smallest_bit_depth(low, high):
    """Bits ``b`` with ``-2^(b-1) <= low`` and ``high <= 2^(b-1) - 1``; 0 where both are 0."""
    magnitude = np.maximum(-low.astype(np.int64), high.astype(np.int64) + 1)
    bits = 1 + np.frexp((magnitude - 1).astype(np.float64))[1]
    return np.where((low == 0) & (high == 0), 0, bits).astype(np.float32)


def _array(variable):
    return np.ascontiguousarray(ops.convert_to_numpy(variable))


def _groups(model):
    """The other variables, those of one name and dtype together."""
    groups = {}
    for variable in other_variables(model):
        groups.setdefault((variable.name, str(variable.dtype)), []).append(variable)
    return list(groups.values())


def _write_group(writer, arrays):
    if arrays[0].dtype != np.float32:
        for array in arrays:
            planes = array.reshape(-1).view(np.uint8).reshape(array.size, -1)
            for plane in planes.T:
                write_integers(writer, plane)
        return
    flat = [a.ravel() for a in arrays]
    together, apart = [np.concatenate(flat)], flat
    if len(flat) > 1:
        costs = []
        for parts in (together, apart):
            trial = Writer()
            for part in parts:
                write_floats(trial, part)
            costs.append(trial.bits)
        apart = apart if costs[1] < costs[0] else together
        writer.uniform(int(apart is flat), 2)
    for part in apart:
        write_floats(writer, part)


def _read_group(reader, variables):
    sizes = [math.prod(v.shape) for v in variables]
    dtype = _array(variables[0]).dtype
    if dtype != np.float32:
        for variable, size in zip(variables, sizes, strict=True):
            planes = [_bytes(read_integers(reader, size)) for _ in range(dtype.itemsize)]
            variable.assign(np.stack(planes, axis=-1).reshape(-1).view(dtype).reshape(variable.shape))
        return
    if len(variables) > 1 and reader.uniform(1, 2)[0]:
        parts = [read_floats(reader, size) for size in sizes]
    else:
        parts = np.split(read_floats(reader, sum(sizes)), np.cumsum(sizes)[:-1])
    for variable, part in zip(variables, parts, strict=True):
        variable.assign(part.reshape(variable.shape))


def _bytes(values):
    if values.size and not 0 <= values.min() <= values.max() < 256:
        raise ValueError(f"Expected bytes. Received: integers from {values.min()} to {values.max()}")
    return values.astype(np.uint8)
