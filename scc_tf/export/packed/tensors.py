"""All weights of a model in one stream, in versions 1 and 2 of the format.

The stream holds no names and no shapes; the architecture has those. In order:

1. the codes of every self-compressing kernel, and the exponents of the channels that have a code other than 0, exactly
   (`scc_tf.export.packed.quantized`);
2. in version 2 only, which is written for models with weight-sharing or masked layers: the coder, 0 for ``"range"``
   and 1 for ``"huffman"``, and the kernels of these layers (`scc_tf.export.packed.sparse`);
3. the other variables, grouped by name and dtype (all biases, all moving means, …): `scc_tf.export.packed.arrays`.
   Of a bias that its layer rounds, the rounded one.
"""

import numpy as np
from keras import ops

from scc_tf.coding.shared import CODERS
from scc_tf.export.packed.arrays import read_arrays, write_arrays
from scc_tf.export.packed.header import PLAIN, SPARSE
from scc_tf.export.packed.quantized import quantized_kernels, read_quantized, write_quantized
from scc_tf.export.packed.sparse import read_sparse, sparse_variables, write_sparse
from scc_tf.layers import self_compressing_layers

__all__ = ["other_variables", "read_tensors", "stored_arrays", "variable_groups", "version_for", "write_tensors"]


def version_for(model):
    """The older version of the format that a model needs."""
    return SPARSE if sparse_variables(model) else PLAIN


def other_variables(model, version=SPARSE):
    """The variables that no kernel's own form holds in that version, each once."""
    known = {id(v) for layer, f in quantized_kernels(model) for v in (getattr(layer, f.name), f.bit_depth, f.exponent)}
    if version != PLAIN:
        known |= {id(v) for v in sparse_variables(model)}
    return list({id(v): v for v in model.weights if id(v) not in known}.values())


def write_tensors(writer, model, coder="range", gap_bits=None):
    """Write all weights of a model, in the version that `version_for` gives.

    Args:
        writer: `scc_tf.coding.Writer`.
        model: functional model.
        coder: of sparse kernels, as for `scc_tf.coding.shared.write_shared`.
        gap_bits: likewise.

    Returns:
        ``(bits, kernels)``: bits per part ``{"codes": …, "exponents": …}``, and those of `write_sparse`, ``{}`` in
        version 1.

    Raises:
        ValueError: if a kernel is not finite.
    """
    exponent_bits = write_quantized(writer, model)
    bits, kernels = {"codes": writer.bits - exponent_bits, "exponents": exponent_bits}, {}
    version = version_for(model)
    if version == SPARSE:
        writer.uniform(CODERS.index(coder), len(CODERS))
        kernels = write_sparse(writer, model, coder, gap_bits)
    arrays = stored_arrays(model, version)
    for group in variable_groups(model, version):
        write_arrays(writer, [arrays[id(v)] for v in group])
    return bits, kernels


def read_tensors(reader, model, version):
    """Read what `write_tensors` wrote into a model of the same architecture.

    Args:
        reader: `scc_tf.coding.Reader`.
        model: the model; all its weights are assigned.
        version: of the format.

    Raises:
        ValueError: if the stream is damaged.
    """
    read_quantized(reader, model)
    if version == SPARSE:
        read_sparse(reader, model, CODERS[int(reader.uniform(1, len(CODERS))[0])])
    for group in variable_groups(model, version):
        dtype = ops.convert_to_numpy(group[0]).dtype
        arrays = read_arrays(reader, [v.shape for v in group], dtype)
        for variable, array in zip(group, arrays, strict=True):
            variable.assign(array)
    reader.check_end()


def stored_arrays(model, version=SPARSE):
    """``{variable: array}`` of the `other_variables`, keyed by ``id``: what a file holds of each, a copy.

    That is its value; but the bias of a self-compressing layer is the one that the layer adds, which it may have
    rounded, and 0 where that is -0.
    """
    arrays = {id(v): np.array(ops.convert_to_numpy(v), order="C") for v in other_variables(model, version)}
    for layer in self_compressing_layers(model):
        bias = layer.quantized_bias()
        if bias is not None:
            dtype = arrays[id(layer.bias)].dtype
            arrays[id(layer.bias)] = ops.convert_to_numpy(bias).astype(dtype) + np.zeros((), dtype)  # -0 + 0 is 0
    return arrays


def variable_groups(model, version=SPARSE):
    """The other variables, those of one name and dtype together, a list of lists."""
    groups = {}
    for variable in other_variables(model, version):
        groups.setdefault((variable.name, str(variable.dtype)), []).append(variable)
    return list(groups.values())
