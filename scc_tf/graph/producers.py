"""Which channels keep each input of a self-compressing kernel alive: the view that the size of a model needs.

A channel of a self-compressing kernel that has no bits left is constant, and so is everything that is computed
from it alone.
"""

import dataclasses

import keras
import numpy as np

from scc_tf.graph.flow import Flow, KernelStep, RouteStep, keeps_apart
from scc_tf.graph.walk import check_functional
from scc_tf.keras_private import all_layers
from scc_tf.layers import KernelLayout, SelfCompressing, kernels_of

__all__ = ["KernelNode", "trace_kernels"]

_NEVER_DIES, _NONE = -1, -2  # in place of a producer; the second: a zero that was padded beside the channels


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


def trace_kernels(model):
    """The self-compressing kernels of a functional model, a `KernelNode` each, in the order of the forward pass.

    Operations that mix channels in ways that are not known here (softmax, attention, …) count as producers that never
    die: their consumers are charged for every input. A shared layer is one node.
    """
    check_functional(model)
    tracer = _Tracer()
    for step in Flow(model).steps:
        tracer.follow(step)
    return list(tracer.nodes.values())


class _Tracer:
    def __init__(self):
        self.nodes = {}  # (id of the layer, kernel name) -> KernelNode, in the order of the forward pass
        self.offset = 0
        self.producers = {}  # id of a signal -> (A, C), where any producer may die
        self.padded = set()  # ids of signals whose positions were padded with zeros

    def follow(self, step):
        if isinstance(step, RouteStep):
            self.producers[id(step.target)] = self._gathered(step)
            if step.channels.padded or any(id(signal) in self.padded for signal in step.sources):
                self.padded.add(id(step.target))
        elif isinstance(step, KernelStep) and isinstance(step.layer, SelfCompressing):
            inputs = self._of(step.source) if step.known_input else None
            made = self._visit(step.layout, inputs, id(step.source) in self.padded)
            if not step.is_last or keeps_apart(step.layer, step.layout):
                self.producers[id(step.target)] = made
        elif not isinstance(step, KernelStep) and isinstance(step.layer, keras.Layer):
            for inner in all_layers(step.layer, include_self=False):  # of a wrapper or a subclassed model
                for layout in kernels_of(inner) if isinstance(inner, SelfCompressing) else ():
                    self._visit(layout, None, padded=False)

    def _of(self, signal):
        return self.producers.get(id(signal), np.full((1, len(signal.atoms)), _NEVER_DIES))

    def _gathered(self, step):
        """Producers ``(A, C)`` of channels that are made from those of several signals."""
        rows = np.concatenate(
            [
                np.where(picked >= 0, self._of(signal)[:, picked], _NONE)
                for signal, sources in zip(step.sources, step.channels.sources, strict=True)
                for picked in sources
            ]
        )
        known = rows != _NONE
        first = np.take_along_axis(rows, known.argmax(axis=0)[None], axis=0)
        return np.unique(np.where(known, rows, first), axis=0)

    def _visit(self, layout, inputs, padded):
        if inputs is None:  # not the channels: assume that they never die
            inputs = np.full((1, layout.inputs), _NEVER_DIES)
        inputs = np.maximum(inputs, _NEVER_DIES)  # a padded zero that nothing was added to is read all the same
        node = self.nodes.get((id(layout.layer), layout.name))
        if node is None:
            node = KernelNode(layout, self.offset, inputs, layout.exact and not padded)
            self.nodes[id(layout.layer), layout.name] = node
            self.offset += layout.channels
        else:  # a shared layer: the input is alive if it is alive in any of the calls
            node.inputs = np.unique(np.concatenate([node.inputs, inputs]), axis=0)
            node.exact = node.exact and not padded
        return np.arange(node.offset, node.offset + layout.channels)[None]
