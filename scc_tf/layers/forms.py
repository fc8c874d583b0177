"""The compressed forms of a Keras class: self-compressing, weight-sharing, masked."""

from scc_tf.layers.compressed import compressed_class
from scc_tf.layers.masked import masked_class
from scc_tf.layers.registry import Entry, add_entry
from scc_tf.layers.self_compressing import SelfCompressing
from scc_tf.layers.weight_sharing import WeightSharing

__all__ = ["add_layer"]


def add_layer(stock, kernels, shape):
    """Make the compressed forms of a Keras class, and an entry for them: ``(self-compressing, weight-sharing)`` class.

    The ``call`` of the stock class uses its kernels, a list of `KernelSpec`, and its ``bias`` as attributes. ``shape``
    is a text on the kernel and its channels, for the docstrings.
    """
    name, names = stock.__name__, tuple(kernel.name for kernel in kernels)
    learned = f"`keras.layers.{name}` with a learned number format per channel; {shape}. See `SelfCompressing`."
    shared = f"`keras.layers.{name}` whose weights share centroids; {shape}. See `WeightSharing`."
    compressing = compressed_class(name, SelfCompressing, stock, names, learned)
    sharing = compressed_class(f"WeightSharing{name}", WeightSharing, stock, names, shared)
    entry = Entry(
        stock,
        tuple(kernels),
        self_compressing=compressing,
        weight_sharing=sharing,
        masked=masked_class(f"Masked{name}", stock, names),
        masked_self_compressing=masked_class(f"MaskedSelfCompressing{name}", compressing, names),
    )
    add_entry(entry)
    for form in (compressing, sharing, entry.masked, entry.masked_self_compressing):
        form.entry = entry
    return compressing, sharing
