"""Kernels of integers to bytes and back, by the compiled model of `scc_tf.coding.mixing.model`.

In the bytes, all by one arithmetic coder, and for each kernel in turn: the side of the image if it may read a
flattened one (5 bits); which channels, then which rows (positions and inputs) are not all zeros; the entries of those.
At the end stand the fewest bytes that tell where the coder stood; zeros after the last are left out.

Numba is imported, and the model compiled or taken from its cache, at the first use.
"""

import numpy as np

from scc_tf.coding.plans import check_side, likely_sides, may_be_flat

__all__ = ["decode_mixed", "encode_mixed"]

_SAMPLE = 32  # channels that the side of an image is chosen on
_STEPS = (8, 16, 32, 64)  # classes of links: a channel's entries over their mean, in 1/16


class _Coder:
    """Codes kernels, one after the other, into ``data`` or from it."""

    def __init__(self, data, decoding):
        from scc_tf.coding.mixing import memory, model  # numba takes as long to import as all the rest

        self.model, self.data, self.decoding = model, data, decoding
        self.memory = memory.start(data, decoding)
        self.counts = np.zeros(0, np.int64)  # of entries in each channel of the kernel before

    def code_side(self, side):
        """Code a number below 32; returns it."""
        bits = [self.model.code_bit(side >> k & 1, 1 << 15, self.memory, self.data) for k in range(4, -1, -1)]
        return sum(bit << k for bit, k in zip(bits, range(4, -1, -1), strict=True))

    def code(self, kernel):
        """Code an int64 kernel ``(C, I, h, w)``, in place."""
        model, (inputs, height, width) = self.model, kernel.shape[1:]
        edge = 2 * (height * width > 1)
        state = self.memory
        state[model.KIND : model.INPUTS] = 0
        state[model.KIND] = 2 if not edge else int(inputs >= height * width)
        state[model.EDGE] = edge
        state[model.SLOTS :] = 1 << 31
        live = kernel.any(axis=(1, 2, 3)).astype(np.int64)
        rows = np.zeros((inputs, 4, height + 2 * edge, width + 2 * edge), np.int64)
        inner = slice(edge, edge + height), slice(edge, edge + width)
        rows[:, model.LIVE, *inner] = kernel.any(axis=0)
        links = self._links(inputs)
        model.code_liveness(live, rows, links, state, self.data)
        state[model.CHANNELS] = live.sum()
        window = np.zeros((inputs, 3, *rows.shape[2:]), np.int64)
        model.code_weights(kernel, live, rows, window, links, state, self.data)
        self.counts = np.count_nonzero(kernel, axis=(1, 2, 3))

    def _links(self, inputs):
        """Class ``(I,)`` of the channel before that each input reads: 0 unknown, 1 dead, from 2 by its entries."""
        channels = self.counts.size
        if not channels or inputs % channels:
            return np.zeros(inputs, np.int64)
        mean = max(int(self.counts.sum()), 1)
        classes = 2 + np.searchsorted(_STEPS, 16 * self.counts * np.count_nonzero(self.counts) // mean, side="right")
        return np.where(self.counts, classes, 1)[np.arange(inputs) % channels]

    def end(self):
        """The number between the coder's bounds that ends in most zeros, 48 bits."""
        low, high = int(self.memory[self.model.LOW]), int(self.memory[self.model.HIGH])
        return next(v for k in range(48, -1, -8) if (v := -(-low >> k) << k) <= high)


def _split(kernel, side):
    """``(height, width, inputs, channels)`` as ``(C, I, h, w)``, a view if it can be."""
    height, width, inputs, channels = kernel.shape
    image = kernel.reshape(height * side, width * side, inputs // side**2, channels)
    return image.transpose(3, 2, 0, 1)


def _room(kernels):
    """Bytes that surely suffice: a decision costs at most 12 bits."""
    decisions = 0
    for kernel in kernels:
        sizes = np.abs(kernel)
        unary = int(np.minimum(sizes, 20).sum()) + 70 * np.count_nonzero(sizes >= 20)
        decisions += unary + 2 * sizes.size + sizes.size // max(kernel.shape[3], 1) + kernel.shape[3] + 8
    return 3 * decisions // 2 + 64


def _encode(kernels, sides):
    coder = _Coder(np.zeros(_room(kernels), np.uint8), decoding=False)
    for kernel, side in zip(kernels, sides, strict=True):
        if may_be_flat(kernel.shape):
            coder.code_side(side)
        coder.code(np.ascontiguousarray(_split(kernel, side), np.int64))
    done = coder.data[: coder.memory[coder.model.NEXT]].tobytes()
    return (done + coder.end().to_bytes(6, "big")).rstrip(b"\0")


def _side(kernel):
    """The side of the image that a kernel reads, if it is one: what costs less on some of its channels."""
    live = np.flatnonzero(kernel.any(axis=(0, 1, 2)))
    some = kernel[..., live[:: max(live.size // _SAMPLE, 1)]]
    sides = likely_sides(some) if live.size else [1]
    return sides[0] if len(sides) == 1 else min(sides, key=lambda side: len(_encode([some], [side])))


def encode_mixed(kernels):
    """Encode integer kernels losslessly, with an adaptive mix of binary context models.

    Args:
        kernels: list of int arrays ``(height, width, inputs, channels)``, values within int32, in the order of the
            layers: a channel that is all zeros makes zeros of the next kernel's inputs likely.

    Returns:
        bytes: no shapes, and no parameters but the side of a flattened image per kernel.

    Raises:
        ValueError: if a kernel is not such an array.

    Source: see `scc_tf.coding.mixing.model`.

    Example:
        >>> data = encode_mixed([np.array([0, -1, 0, 0, 0, 70000]).reshape(1, 1, 3, 2)])
        >>> decode_mixed(data, [(1, 1, 3, 2)])[0].ravel().tolist()
        [0, -1, 0, 0, 0, 70000]
    """
    kernels = [np.asarray(kernel) for kernel in kernels]
    for kernel in kernels:
        if kernel.ndim != 4 or kernel.dtype.kind not in "iub":
            raise ValueError(
                "Expected integer kernels (height, width, inputs, channels). "
                f"Received: shape={kernel.shape}, dtype={kernel.dtype}"
            )
        low, high = (int(kernel.min()), int(kernel.max())) if kernel.size else (0, 0)
        if not -(1 << 31) <= low <= high < 1 << 31:
            raise ValueError(f"Expected values within int32. Received: from {low} to {high}")
    kernels = [kernel.astype(np.int64) for kernel in kernels]
    return _encode(kernels, [_side(kernel) for kernel in kernels])


def decode_mixed(data, shapes):
    """Decode what `encode_mixed` made.

    Args:
        data: the bytes, no more and no fewer.
        shapes: list of the kernels' shapes ``(height, width, inputs, channels)``.

    Returns:
        list of int32 arrays of these shapes.

    Raises:
        ValueError: if the bytes are damaged, as far as that shows; time and memory are bounded by the shapes, whatever
            the bytes hold. Damage may also read as other values: keep a checksum.
    """
    coder = _Coder(np.frombuffer(bytearray(data), np.uint8), decoding=True)  # compiled for what may be written
    kernels = []
    for shape in shapes:
        side = 1
        if may_be_flat(tuple(shape)):
            side = coder.code_side(0)
            check_side(side, shape[2])
        kernel = np.zeros(shape, np.int32)
        view = _split(kernel, side)
        codes = np.zeros(view.shape, np.int64)
        coder.code(codes)
        if codes.size and not -(1 << 31) <= codes.min() <= codes.max() < 1 << 31:
            raise ValueError(f"Expected values within int32. Received: from {codes.min()} to {codes.max()}")
        view[...] = codes
        kernels.append(kernel)
    if coder.data.size > coder.memory[coder.model.NEXT] or coder.memory[coder.model.CODE] != coder.end():
        raise ValueError(f"Expected the bytes of these kernels and no others. Received: {coder.data.size} bytes")
    return kernels
