"""The kernels of self-compressing layers in the stream: their codes, and the exponents of the channels that live.

Bit depths are not stored: on reading, a channel has the smallest that holds its codes, and 0 if all are 0; its
exponent is then 0 too. The latent kernel is the quantized one, save for the last bit where that would quantize to
another code.
"""

import numpy as np
from keras import ops

from scc_tf.coding.kernels import read_kernels, write_kernels
from scc_tf.export.packed.arrangement import Arrangement
from scc_tf.training import self_compressing_layers

__all__ = ["assign_kernel", "live_codes", "quantized_kernels", "read_quantized", "write_quantized"]

_STEPS = 16  # units in the last place by which a latent weight may move


def quantized_kernels(model):
    """``(layer, format)`` of every self-compressing kernel."""
    return [(layer, fmt) for layer in self_compressing_layers(model) for fmt in layer.formats]


def live_codes(layer, fmt):
    """The codes, those that quantize to 0 being 0, int32 in the kernel's shape.

    Raises:
        ValueError: if the kernel is not finite.
    """
    codes = ops.convert_to_numpy(layer.codes(fmt.name)).astype(np.int32)
    quantized = ops.convert_to_numpy(layer.quantized(fmt.name))
    if not np.isfinite(quantized).all():
        raise ValueError(
            f"Expected finite weights. Received: {fmt.name} of layer {layer.name!r} with weights that are not"
        )
    return np.where(quantized != 0, codes, 0)


def write_quantized(writer, model):
    """Write the codes and exponents of a model; returns the bits of the exponents.

    Raises:
        ValueError: if a kernel is not finite.
    """
    kernels, exponents = [], []
    for layer, fmt in quantized_kernels(model):
        codes = Arrangement(fmt).coded(live_codes(layer, fmt))
        kernels.append(codes)
        exponents.append(np.where(codes.any(axis=(0, 1, 2)), ops.convert_to_numpy(fmt.exponent), np.float32(0)))
    return write_kernels(writer, kernels, exponents)


def read_quantized(reader, model):
    """Read what `write_quantized` wrote, into a model of the same architecture.

    Raises:
        ValueError: if the stream is damaged.
    """
    pairs = quantized_kernels(model)
    arrangements = [Arrangement(fmt) for layer, fmt in pairs]
    kernels, exponents = read_kernels(reader, [a.shape for a in arrangements])
    for (layer, fmt), arrangement, codes, own in zip(pairs, arrangements, kernels, exponents, strict=True):
        assign_kernel(layer, fmt, arrangement, codes, own)


def assign_kernel(layer, fmt, arrangement, codes, exponents):
    """Give a layer a kernel.

    Args:
        layer: self-compressing layer.
        fmt: the kernel's format.
        arrangement: its `scc_tf.export.packed.arrangement.Arrangement`.
        codes: int32 array, arranged.
        exponents: float32 array, one per channel, 0 for channels of zeros.

    Raises:
        ValueError: if a layer cannot have such a kernel.
    """
    flat = codes.reshape(-1, fmt.channels)
    fmt.bit_depth.assign(_smallest_bit_depth(flat.min(axis=0), flat.max(axis=0)))
    fmt.exponent.assign(exponents)
    codes = arrangement.kernel(codes)
    steps = ops.convert_to_numpy(ops.power(2.0, fmt.spread(fmt.exponent)))
    dtype = ops.convert_to_numpy(getattr(layer, fmt.name)).dtype
    with np.errstate(over="ignore", invalid="ignore"):
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
