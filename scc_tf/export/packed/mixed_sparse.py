"""Kernels with shared weights, and kernels with masks, in the stream of version 3.

In order:

1. of every weight-sharing kernel the centroids, and its indices as a kernel of signed numbers, those of negative
   centroids below 0 (`scc_tf.coding.mixing.centered`);
2. of every masked kernel of a stock layer, and of every one of a self-compressing layer, what
   `scc_tf.export.packed.sparse` says of it, which entries being a kernel of zeros and ones.
"""

import numpy as np
from keras import ops

from scc_tf.coding.mixing import MixedCoder, centered, code_array, code_floats, uncentered
from scc_tf.coding.mixing.kinds import FLAG
from scc_tf.export.packed.arrangement import Arrangement
from scc_tf.export.packed.sparse import add_bits, finite, masked_kernels, shared_kernels

__all__ = ["code_sparse"]


def code_sparse(coder, model):
    """Write all kernels with shared weights or masks, or read them into a model whose codes are read.

    Args:
        coder: `scc_tf.coding.mixing.MixedCoder`.
        model: functional model.

    Returns:
        Bits per layer and part, as `scc_tf.export.packed.sparse.write_sparse` does. Weights and positions of shared
        kernels are coded together; what the positions would take on their own counts as indices.

    Raises:
        ValueError: if a centroid or a masked kernel is not finite, or what is read is damaged.
    """
    bits = {}
    for layer, kernel in shared_kernels(model):
        add_bits(bits, layer, **_code_shared(coder, layer, kernel))
    for kernel in masked_kernels(model):
        add_bits(bits, kernel.layer, **_code_masked(coder, kernel))
    return bits


def _code_shared(coder, layer, kernel):
    arrangement, clusters = Arrangement(kernel), kernel.centroids.shape[0]
    start = coder.bits
    centroids = np.array(ops.convert_to_numpy(kernel.centroids))
    code_floats(coder, centroids)
    finite(centroids, layer)
    center = np.count_nonzero(centroids < 0)
    before = coder.bits
    if coder.reading:
        codes = np.zeros(arrangement.shape, np.int32)
        coder.kernel(codes)
        layer.share(centroids, arrangement.kernel(uncentered(codes, center, clusters)), kernel.name)
        return {}
    codes = centered(arrangement.coded(kernel.indices), center)
    coder.kernel(codes)
    alone = MixedCoder()
    alone.kernel(codes != 0)
    indices = min(alone.bits, coder.bits - before)
    return {"codebook": before - start, "indices": indices, "weights": coder.bits - before - indices}


def _code_masked(coder, kernel):
    arrangement, start = kernel.arrangement, coder.bits
    entries = np.zeros(arrangement.shape, np.int32)
    if kernel.variable is None:
        if not coder.reading:
            entries[:] = (arrangement.coded(kernel.mask) != 0) != (arrangement.coded(kernel.codes()) != 0)
        coder.kernel(entries)
        if coder.reading:
            kernel.mask.assign(arrangement.kernel(entries != 0) != (kernel.codes() != 0))
        return {"indices": coder.bits - start}
    values = arrangement.coded(finite(ops.convert_to_numpy(kernel.variable), kernel.layer))
    mask = arrangement.coded(kernel.mask) != 0
    if not coder.reading:
        entries[:] = mask | (values != 0)
    coder.kernel(entries)
    left = entries != 0
    before = coder.bits
    own, pruned = np.ascontiguousarray(values[left]), 1 - mask[left].astype(np.int64)
    code_array(coder, own)
    after = coder.bits
    coder.numbers(pruned, FLAG)
    if coder.reading:
        _assign_masked(kernel, left, finite(own, kernel.layer), pruned)
    return {"indices": coder.bits - start - (after - before), "weights": after - before}


def _assign_masked(kernel, left, values, pruned):
    everything, mask = np.zeros(left.shape, values.dtype), np.zeros(left.shape, bool)
    everything[left], mask[left] = values, pruned == 0
    kernel.variable.assign(kernel.arrangement.kernel(everything))
    kernel.mask.assign(kernel.arrangement.kernel(mask))
