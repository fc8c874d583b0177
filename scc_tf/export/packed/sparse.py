"""Kernels with shared weights, and kernels with masks, in the stream.

In order:

1. the indices of every weight-sharing kernel (`scc_tf.coding.shared`), 0 for a pruned weight, and then the centroids
   of all kernels;
2. of every masked kernel of a stock layer: which entries the mask keeps or are not 0 (as indices of one cluster), the
   values of these, and which of them the mask keeps, which is all but for a kernel that is not what its mask made it.
   An entry that is not among them is restored as +0;
3. of every masked kernel of a self-compressing layer: where its mask is not 1 just where its code is not 0 (as indices
   of one cluster).
"""

import dataclasses

import numpy as np
from keras import ops

from scc_tf.coding import read_shared, write_shared
from scc_tf.coding.numbers import read_flags, write_flags
from scc_tf.export.packed.arrangement import Arrangement
from scc_tf.export.packed.arrays import read_arrays, write_arrays
from scc_tf.export.packed.quantized import live_codes
from scc_tf.keras_private import all_layers
from scc_tf.layers import Masked, SelfCompressing, layout_of, weight_sharing_layers

__all__ = ["add_bits", "finite", "masked_kernels", "read_sparse", "shared_kernels", "sparse_variables", "write_sparse"]


@dataclasses.dataclass(frozen=True)
class MaskedKernel:
    """One kernel with a mask.

    Attributes:
        layer, name: where it is.
        mask: its mask, a variable.
    """

    layer: object
    name: str
    mask: object

    @property
    def variable(self):
        """The variable that holds the kernel; None if it is self-compressing, and stored as codes."""
        return None if isinstance(self.layer, SelfCompressing) else getattr(self.layer, self.name)

    @property
    def arrangement(self):
        """The order in which it is coded."""
        return Arrangement(layout_of(self.layer, self.name))

    def codes(self):
        """The codes of a self-compressing kernel."""
        return live_codes(self.layer, self.layer.format_of(self.name))


def shared_kernels(model):
    """``(layer, shared kernel)`` of every weight-sharing kernel."""
    return [(layer, shared) for layer in weight_sharing_layers(model) for shared in layer.shared_kernels]


def masked_kernels(model):
    """`MaskedKernel` of every mask, those of stock layers first."""
    layers = [layer for layer in all_layers(model) if isinstance(layer, Masked)]
    kernels = [MaskedKernel(layer, name, mask) for layer in layers for name, mask in layer.masks.items()]
    return sorted(kernels, key=lambda kernel: kernel.variable is None)


def sparse_variables(model):
    """The variables that are written here."""
    variables = [v for _, shared in shared_kernels(model) for v in (shared.centroids, shared.indices)]
    for kernel in masked_kernels(model):
        variables += [kernel.mask] if kernel.variable is None else [kernel.mask, kernel.variable]
    return variables


def add_bits(bits, layer, **parts):
    """Add to what the parts of a layer's kernels take: ``{layer name: {part: bits}}``."""
    own = bits.setdefault(layer.name, dict.fromkeys(("weights", "indices", "tables", "codebook"), 0.0))
    own.update({part: own[part] + cost for part, cost in parts.items()})


def write_sparse(writer, model, coder, gap_bits):
    """Write all kernels with shared weights or masks.

    Args:
        writer: `scc_tf.coding.Writer`.
        model: functional model.
        coder: as for `scc_tf.coding.shared.write_shared`.
        gap_bits: as for `scc_tf.coding.shared.write_shared`.

    Returns:
        Bits per layer and part: ``{layer name: {"weights": …, "indices": …, "tables": …, "codebook": …}}``, the
        kernels of one layer, and layers of one name, added up.

    Raises:
        ValueError: if a centroid or a masked kernel is not finite.
    """
    bits = {}
    shared = shared_kernels(model)
    for layer, kernel in shared:
        indices = Arrangement(kernel).coded(kernel.indices)
        add_bits(bits, layer, **write_shared(writer, indices, kernel.centroids.shape[0], coder, gap_bits))
    if shared:
        before = writer.bits
        centroids = [finite(ops.convert_to_numpy(kernel.centroids), layer) for layer, kernel in shared]
        write_arrays(writer, centroids)
        each = (writer.bits - before) / sum(c.size for c in centroids)
        for (layer, _), own in zip(shared, centroids, strict=True):
            add_bits(bits, layer, codebook=each * own.size)
    for kernel in masked_kernels(model):
        add_bits(bits, kernel.layer, **_write_masked(writer, kernel, coder, gap_bits))
    return bits


def finite(values, layer):
    """Return weights of a layer if they are finite, and raise ValueError otherwise."""
    if not np.isfinite(values).all():
        raise ValueError(f"Expected finite weights. Received: layer {layer.name!r} with weights that are not")
    return values


def _write_masked(writer, kernel, coder, gap_bits):
    arrangement = kernel.arrangement
    mask = arrangement.coded(kernel.mask) != 0
    if kernel.variable is None:
        cost = write_shared(writer, mask != (arrangement.coded(kernel.codes()) != 0), 1, coder, gap_bits)
        return {"indices": sum(cost.values())}
    values = arrangement.coded(finite(ops.convert_to_numpy(kernel.variable), kernel.layer))
    stored = mask | (values != 0)
    cost = write_shared(writer, stored, 1, coder, gap_bits)
    before = writer.bits
    if stored.any():
        write_arrays(writer, [values[stored]])
    cost["weights"] += writer.bits - before
    before = writer.bits
    write_flags(writer, mask[stored])
    cost["indices"] += writer.bits - before
    return cost


def read_sparse(reader, model, coder):
    """Read what `write_sparse` wrote, into a model of the same architecture whose codes are read.

    Args:
        reader: `scc_tf.coding.Reader`.
        model: the model; its kernels, centroids, indices and masks are assigned.
        coder: as for `write_sparse`.

    Raises:
        ValueError: if the stream is damaged.
    """
    shared = shared_kernels(model)
    indices = []
    for _, kernel in shared:
        arrangement = Arrangement(kernel)
        coded = read_shared(reader, arrangement.shape, kernel.centroids.shape[0], coder)
        indices.append(arrangement.kernel(coded))
    if shared:
        centroids = read_arrays(reader, [kernel.centroids.shape for _, kernel in shared], np.float32)
        for (layer, kernel), own, places in zip(shared, centroids, indices, strict=True):
            layer.share(own, places, kernel.name)
    for kernel in masked_kernels(model):
        _read_masked(reader, kernel, coder)


def _read_masked(reader, kernel, coder):
    arrangement = kernel.arrangement
    stored = read_shared(reader, arrangement.shape, 1, coder) > 0
    if kernel.variable is None:
        kernel.mask.assign(arrangement.kernel(stored) != (kernel.codes() != 0))
        return
    dtype = ops.convert_to_numpy(kernel.variable).dtype
    values, mask = np.zeros(stored.shape, dtype), np.zeros(stored.shape, bool)
    if stored.any():
        values[stored] = finite(read_arrays(reader, [(int(stored.sum()),)], dtype)[0], kernel.layer)
    mask[stored] = read_flags(reader, int(stored.sum()))
    kernel.variable.assign(arrangement.kernel(values))
    kernel.mask.assign(arrangement.kernel(mask))
