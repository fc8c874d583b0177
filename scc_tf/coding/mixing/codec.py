"""Kernels of integers to bytes and back, by the compiled model of `scc_tf.coding.mixing.model`.

In the bytes, for each kernel in turn: the side of the image if it may read a flattened one (its place among the sides
that can be); which channels, then which rows (positions and inputs) are not all zeros; the entries of those.
"""

import numpy as np

from scc_tf.coding.mixing.coder import MixedCoder

__all__ = ["decode_mixed", "encode_mixed"]


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
    coder = MixedCoder()
    for kernel in kernels:
        coder.kernel(np.asarray(kernel))
    return coder.getvalue()


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
    coder, kernels = MixedCoder(data), [np.zeros(shape, np.int32) for shape in shapes]
    for kernel in kernels:
        coder.kernel(kernel)
    coder.check_end()
    return kernels
