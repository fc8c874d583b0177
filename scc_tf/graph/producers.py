"""Which channels keep each input of a self-compressing kernel alive: the view that the size of a model needs.

A channel of a self-compressing kernel that has no bits left is constant, and so is everything that is computed
from it alone.
"""

import dataclasses

import keras
import numpy as np

from scc_tf.graph.kernels import KernelLayout, kernels_of
from scc_tf.graph.routes import channel_axis, is_elementwise, route
from scc_tf.graph.walk import check_functional, walk
from scc_tf.layers import SelfCompressing

__all__ = ["KernelNode", "trace_kernels"]


@dataclasses.dataclass
class KernelNode:
    """One self-compressing kernel and what feeds it.

    Attributes:
        layout: `KernelLayout` of the kernel.
        offset: number of the kernel's first channel when the channels of all kernels stand in one row.
        inputs: int array ``(A, I)``: the producers (channel numbers, in `offset` numbering) of the ``I`` inputs.
            An input is alive while any of its ``A`` producers is; -1 is a producer that never dies.
        exact: whether a constant input adds the same to every position of the output (no padding with zeros, neither
            by the layer nor before it).
    """

    layout: KernelLayout
    offset: int
    inputs: np.ndarray
    exact: bool

    @property
    def layer(self):
        """The self-compressing layer."""
        return self.layout.layer

    @property
    def format(self):
        """The `scc_tf.layers.ChannelFormat` of the kernel."""
        return self.layer.format_of(self.layout.name)

    def live_inputs(self, alive):
        """Which inputs are alive, bool ``(I,)``, when ``alive`` (bool, all channels in a row) are."""
        return np.append(alive, True)[self.inputs].any(axis=0)


@dataclasses.dataclass(frozen=True)
class _Alive:
    """The producers ``(A, C)`` of a tensor's channels, their axis, and whether zeros pad the positions."""

    producers: np.ndarray
    axis: int
    padded: bool = False


def _never_dying(count):
    return np.full((1, count), -1)


def _immortal(tensor):
    rank = len(tensor.shape)
    return _Alive(_never_dying(tensor.shape[-1] or 1 if rank else 1), rank - 1)


def _stack(arrays):
    """Producers of a channel that is alive while it is in any of ``arrays`` ``(A_k, C)``."""
    return np.unique(np.concatenate(arrays), axis=0)


_NONE = -2  # no producer: a zero that was padded beside the channels


def _gathered(channels, inputs):
    """Producers ``(A, C)`` of channels that are made from those of ``inputs``."""
    rows = [
        np.where(picked >= 0, value.producers[:, picked], _NONE)
        for value, sources in zip(inputs, channels.sources, strict=True)
        for picked in sources
    ]
    rows = np.concatenate(rows)
    known = rows != _NONE
    first = np.take_along_axis(rows, known.argmax(axis=0)[None], axis=0)
    return np.unique(np.where(known, rows, first), axis=0)


class _Tracer:
    def __init__(self):
        self.nodes = {}  # (id of the layer, kernel name) -> KernelNode, in the order of the forward pass
        self.offset = 0

    def visit(self, layer, tensors, inputs, outputs):
        if isinstance(layer, SelfCompressing) and kernels_of(layer):
            return [self.visit_twin(layer, tensors[0], inputs[0], outputs[0])]
        axes = [value.axis for value in inputs]
        if len(outputs) == 1 and (channels := route(layer, tensors, axes, outputs[0])):
            counts = [value.producers.shape[1] for value in inputs]
            if counts == [t.shape[a] for t, a in zip(tensors, axes, strict=True)]:
                padded = channels.padded or any(value.padded for value in inputs)
                return [_Alive(_gathered(channels, inputs), channels.axis, padded)]
        if isinstance(layer, keras.Layer):  # a wrapper or a subclassed model: its kernels count all the same
            for inner in layer._flatten_layers(include_self=False):
                for kernel in kernels_of(inner) if isinstance(inner, SelfCompressing) else ():
                    self.visit_kernel(kernel, None, padded=False)
        return [_immortal(t) for t in outputs]

    def visit_twin(self, layer, tensor, value, output):
        kernels = kernels_of(layer)
        producers = value.producers if kernels[0].reads_channels(len(tensor.shape), value.axis) else None
        for kernel in kernels:
            producers = self.visit_kernel(kernel, producers, value.padded)
        if not is_elementwise(layer) or not kernels[-1].writes_channels():
            return _immortal(output)
        return _Alive(producers, channel_axis(layer, len(output.shape)))

    def visit_kernel(self, kernel, inputs, padded):
        if inputs is None or inputs.shape[1] != kernel.inputs:  # not the channels: assume that they never die
            inputs = _never_dying(kernel.inputs)
        inputs = np.maximum(inputs, -1)  # a padded zero that nothing was added to is read all the same
        key = id(kernel.layer), kernel.name
        node = self.nodes.get(key)
        if node is None:
            node = self.nodes[key] = KernelNode(kernel, self.offset, inputs, kernel.exact and not padded)
            self.offset += kernel.channels
        else:  # a shared layer: the input is alive if it is alive in any of the calls
            node.inputs = _stack([node.inputs, inputs])
            node.exact = node.exact and not padded
        return np.arange(node.offset, node.offset + kernel.channels)[None]


def trace_kernels(model):
    """Find the self-compressing kernels of a model and the producers of their inputs.

    Operations that mix channels in ways that are not known here (softmax, attention, …) count as producers that never
    die: their consumers are charged for every input.

    Args:
        model: built Sequential or functional Keras model.

    Returns:
        List of `KernelNode` in the order of the forward pass. A shared layer is one node.

    Raises:
        ValueError: if the model is a subclassed one or not built.
    """
    check_functional(model)
    tracer = _Tracer()
    walk(model, [_immortal(t) for t in model.inputs], tracer.visit)
    return list(tracer.nodes.values())
