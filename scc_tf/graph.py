"""Which channels feed which kernels: the channel-level view of a functional Keras model.

A channel of a self-compressing kernel that has no bits left is constant, and so is everything that is computed
from it alone. `trace_kernels` follows the channels through the graph and tells, for every kernel, which producer
channels keep each of its inputs alive.
"""

import dataclasses
import math

import keras
import numpy as np

from scc_tf.layers import DepthwiseConv2D, EinsumDense, SelfCompressing, SeparableConv2D

__all__ = ["KernelNode", "trace_kernels"]

_PER_CHANNEL = (  # a constant channel in is a constant channel out
    keras.layers.Activation,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Identity,
    keras.layers.LeakyReLU,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
)
_ELEMENTWISE_MERGES = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Subtract,
)


@dataclasses.dataclass
class KernelNode:
    """One self-compressing kernel and what feeds it.

    Attributes:
        layer, kernel_name: where the kernel is.
        offset: number of the kernel's first channel when the channels of all kernels stand in one row.
        channels: output channels ``C``.
        fan_in: weights per output channel.
        groups: ``G``; the inputs of one group reach the channels of the same group only (a depthwise kernel
            has one group per input).
        inputs: int array ``(A, I)``: the producers (channel numbers, in `offset` numbering) of the ``I`` inputs.
            An input is alive while any of its ``A`` producers is; -1 is a producer that never dies.
        exact: whether a constant input can be folded into the bias exactly (no padding with zeros).
    """

    layer: SelfCompressing
    kernel_name: str
    offset: int
    channels: int
    fan_in: int
    groups: int
    inputs: np.ndarray
    exact: bool

    @property
    def weights_per_input(self):
        """Weights of one channel that read one input (the area of a filter)."""
        return self.fan_in * self.groups // self.inputs.shape[1]

    @property
    def format(self):
        """The `scc_tf.layers.ChannelFormat` of the kernel."""
        return self.layer.format_of(self.kernel_name)

    def live_inputs(self, alive):
        """Which inputs are alive, bool ``(I,)``, when ``alive`` (bool, all channels in a row) are."""
        return np.append(alive, True)[self.inputs].any(axis=0)


def _immortal(count):
    return np.full((1, count), -1)


class _Tracer:
    def __init__(self):
        self.nodes = {}  # (id of the layer, kernel name) -> KernelNode, in the order of the forward pass
        self.offset = 0

    def run(self, model, arguments):
        """Producers of each output of ``model`` given the producers of its inputs."""
        known = {id(t): p for t, p in zip(model.inputs, arguments, strict=True)}

        def producers(tensor):
            if id(tensor) not in known:
                operation, node_index, _ = tensor._keras_history
                node = operation._inbound_nodes[node_index]
                inputs = [producers(t) for t in node.input_tensors]
                outputs = self.visit(operation, node.input_tensors, inputs, node.output_tensors)
                known.update((id(t), p) for t, p in zip(node.output_tensors, outputs, strict=True))
            return known[id(tensor)]

        return [producers(t) for t in model.outputs]

    def visit(self, layer, tensors, inputs, outputs):
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            return self.run(layer, inputs)
        if isinstance(layer, SelfCompressing):
            return [self.visit_kernels(layer, inputs[0])]
        if isinstance(layer, _PER_CHANNEL):
            return [inputs[0]]
        if isinstance(layer, keras.layers.Flatten):
            return [self.flatten(layer, tensors[0], inputs[0])]
        if isinstance(layer, _ELEMENTWISE_MERGES) and len({p.shape[1] for p in inputs}) == 1:
            return [np.concatenate(inputs)]
        if isinstance(layer, keras.layers.Concatenate) and layer.axis in (-1, len(tensors[0].shape) - 1):
            depth = max(len(p) for p in inputs)
            return [np.concatenate([np.resize(p, (depth, p.shape[1])) for p in inputs], axis=1)]
        return [_immortal(t.shape[-1] or 1) for t in outputs]

    @staticmethod
    def flatten(layer, tensor, inputs):
        positions = tensor.shape[1:]
        if None in positions:
            return _immortal(1)
        copies = math.prod(positions) // inputs.shape[1]
        if layer.data_format == "channels_first":
            return np.repeat(inputs, copies, axis=1)
        return np.tile(inputs, copies)

    def visit_kernels(self, layer, inputs):
        for name in layer.kernel_names:
            inputs = self.visit_kernel(layer, name, inputs)
        return inputs

    def visit_kernel(self, layer, name, inputs):
        channel_format = layer.format_of(name)
        in_count = self.inputs_of(layer, name, channel_format)
        if inputs.shape[1] != in_count:  # an axis that is not the channels: assume that it never dies
            inputs = _immortal(in_count)
        node = self.nodes.get((id(layer), name))
        if node is None:
            depthwise = isinstance(layer, DepthwiseConv2D) or name == "depthwise_kernel"
            groups = in_count if depthwise else getattr(layer, "groups", 1)
            exact = getattr(layer, "padding", "valid") == "valid" or set(channel_format.kernel_shape[:-2]) == {1}
            node = KernelNode(
                layer, name, self.offset, channel_format.channels, channel_format.fan_in, groups, inputs, exact
            )
            self.nodes[(id(layer), name)] = node
            self.offset += node.channels
        else:  # a shared layer: the input is alive if it is alive in any of the calls
            depth = max(len(node.inputs), len(inputs))
            node.inputs = np.concatenate(
                [np.resize(p, (depth, in_count)) for p in (node.inputs, inputs)]
            )
        return np.arange(node.offset, node.offset + node.channels)[None]

    @staticmethod
    def inputs_of(layer, name, channel_format):
        shape = channel_format.kernel_shape
        if isinstance(layer, EinsumDense):
            return channel_format.fan_in
        if isinstance(layer, keras.layers.Conv2DTranspose):
            return shape[-1]
        if isinstance(layer, DepthwiseConv2D | SeparableConv2D):
            return shape[-2]
        return shape[-2] * getattr(layer, "groups", 1)


def trace_kernels(model):
    """Find the self-compressing kernels of a model and the producers of their inputs.

    Operations that mix channels in ways that are not known here (softmax, attention, reshaping, …) count as
    producers that never die: their consumers are charged for every input.

    Args:
        model: built Sequential or functional Keras model.

    Returns:
        List of `KernelNode` in the order of the forward pass. A shared layer is one node.

    Raises:
        ValueError: if the model is a subclassed one or not built.
    """
    if not getattr(model, "inputs", None):
        raise ValueError(
            "Expected a built Sequential or functional Keras model. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    tracer = _Tracer()
    tracer.run(model, [_immortal(t.shape[-1] or 1) for t in model.inputs])
    return list(tracer.nodes.values())
