"""What a file takes at least: the layers that are not compressed, whatever becomes of the others."""

import math

import numpy as np

from scc_tf.arguments import received
from scc_tf.export.packed import packed_bytes
from scc_tf.graph import clone_graph, copy_layer
from scc_tf.layers import SelfCompressing
from scc_tf.training import SelfCompressingModel

__all__ = ["check_target", "without_kernels"]

_NAMED = 5


def without_kernels(model):
    """A copy of a model in which all is zero that training could make zero: what is compressed, and every vector.

    Args:
        model: `scc_tf.SelfCompressingModel`, left untouched.

    Returns:
        ``(SelfCompressingModel, not compiled; {layer name: bytes as float32} of what stays, the largest first)``.
    """
    empty, pairs = clone_graph(model, copy_layer, SelfCompressingModel)
    stays = {}
    for layer, copy in pairs:
        compressed = isinstance(layer, SelfCompressing) and layer.trainable
        for weight, other in zip(layer.weights, copy.weights, strict=True):
            if len(weight.shape) >= 2 and not compressed:
                other.assign(weight)
                stays[layer.name] = stays.get(layer.name, 0) + 4 * math.prod(weight.shape)
            elif "float" in str(weight.dtype):
                other.assign(np.zeros(weight.shape))
    return empty, dict(sorted(stays.items(), key=lambda item: -item[1]))


def check_target(model, target_bytes, measure=lambda model: len(packed_bytes(model))):
    """Refuse a size that no training can reach.

    Args:
        model: `scc_tf.SelfCompressingModel`.
        target_bytes: length of the file that is asked for.
        measure: function ``model -> bytes``.

    Raises:
        ValueError: if the file takes more even without the compressed kernels; the message names the layers that are
            not compressed.
    """
    empty, stays = without_kernels(model)
    floor = measure(empty)
    if target_bytes >= floor:
        return
    names = [f"{name} ({size:,} B)" for name, size in stays.items()]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    reason = f"; not compressed: {', '.join(names[:_NAMED])}{more}" if names else ""
    raise ValueError(
        f"Expected target_bytes to be at least {floor:,.0f}, the file without all compressed kernels{reason}. "
        f"{received('target_bytes', target_bytes)}"
    )
