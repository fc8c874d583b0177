"""Which channels feed which kernels: the channel-level view of a functional Keras model.

A channel of a self-compressing kernel that has no bits left is constant, and so is everything that is computed
from it alone. `trace_kernels` follows the channels through the graph and tells, for every kernel, which producer
channels keep each of its inputs alive.
"""

import dataclasses

import keras
import numpy as np

from scc_tf.layers import (
    Conv2DTranspose,
    DepthwiseConv2D,
    EinsumDense,
    SelfCompressing,
    SeparableConv2D,
    einsum_letters,
)

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
_ELEMENTWISE_ACTIVATIONS = (  # softmax and the like mix the channels
    None,
    keras.activations.celu,
    keras.activations.elu,
    keras.activations.exponential,
    keras.activations.gelu,
    keras.activations.hard_sigmoid,
    keras.activations.hard_silu,
    keras.activations.hard_tanh,
    keras.activations.leaky_relu,
    keras.activations.linear,
    keras.activations.log_sigmoid,
    keras.activations.mish,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.selu,
    keras.activations.sigmoid,
    keras.activations.silu,
    keras.activations.softplus,
    keras.activations.softsign,
    keras.activations.tanh,
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


@dataclasses.dataclass(frozen=True)
class _Channels:
    """The channels of a tensor: their producers ``(A, C)`` and the axis on which they stand."""

    producers: np.ndarray
    axis: int

    @property
    def count(self):
        return self.producers.shape[1]


def _never_dying(count):
    return np.full((1, count), -1)


def _immortal(tensor):
    rank = len(tensor.shape)
    return _Channels(_never_dying(tensor.shape[-1] or 1 if rank else 1), rank - 1)


def _stack(arrays):
    """Producers of a channel that is alive while it is in any of ``arrays`` ``(A_k, C)``."""
    return np.unique(np.concatenate(arrays), axis=0)


def _channel_axis(layer, rank):
    """Where a layer has its channels."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.axis % rank
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def _is_elementwise(layer):
    return getattr(layer, "activation", None) in _ELEMENTWISE_ACTIVATIONS


def _is_exact(layer, kernel_shape):
    """Whether a constant input adds the same to every position of the output."""
    pointwise = set(kernel_shape[:-2]) == {1}
    if isinstance(layer, Conv2DTranspose):  # the border, and the gaps of a stride, get fewer terms
        return pointwise and set(layer.strides) == {1}
    return pointwise or getattr(layer, "padding", "valid") == "valid"


class _Tracer:
    def __init__(self):
        self.nodes = {}  # (id of the layer, kernel name) -> KernelNode, in the order of the forward pass
        self.offset = 0

    def run(self, model, arguments):
        """Channels of each output of ``model`` given those of its inputs."""
        known = {id(t): c for t, c in zip(model.inputs, arguments, strict=True)}
        waiting = list(reversed(model.outputs))  # a stack: deep models would exhaust Python's own
        while waiting:
            if id(waiting[-1]) in known:
                waiting.pop()
                continue
            operation, node_index, _ = waiting[-1]._keras_history
            node = operation._inbound_nodes[node_index]
            if missing := [t for t in node.input_tensors if id(t) not in known]:
                waiting.extend(reversed(missing))
                continue
            inputs = [known[id(t)] for t in node.input_tensors]
            outputs = self.visit(operation, node.input_tensors, inputs, node.output_tensors)
            known.update((id(t), c) for t, c in zip(node.output_tensors, outputs, strict=True))
        return [known[id(t)] for t in model.outputs]

    def visit(self, layer, tensors, inputs, outputs):
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            return self.run(layer, inputs)
        if isinstance(layer, SelfCompressing):
            return [self.visit_twin(layer, tensors[0], inputs[0], outputs[0])]
        if isinstance(layer, keras.layers.Flatten):
            return [self.flatten(layer, tensors[0], inputs[0])]
        if isinstance(layer, _PER_CHANNEL):
            return [self.per_channel(layer, tensors[0], inputs[0], outputs[0])]
        if isinstance(layer, (*_ELEMENTWISE_MERGES, keras.layers.Concatenate)):
            return [self.merge(layer, tensors, inputs, outputs[0])]
        if isinstance(layer, keras.Layer):  # a wrapper or a subclassed model: its kernels count all the same
            for inner in layer._flatten_layers(include_self=False):
                if isinstance(inner, SelfCompressing):
                    self.visit_kernels(inner)
        return [_immortal(t) for t in outputs]

    @staticmethod
    def per_channel(layer, tensor, channels, output):
        axis = min(channels.axis, len(output.shape) - 1)  # global pooling drops the positions
        names_an_axis = isinstance(layer, keras.layers.BatchNormalization) or hasattr(layer, "data_format")
        if names_an_axis and _channel_axis(layer, len(tensor.shape)) != channels.axis:
            return _immortal(output)
        if not _is_elementwise(layer) or output.shape[axis] != channels.count:
            return _immortal(output)
        return _Channels(channels.producers, axis)

    @staticmethod
    def flatten(layer, tensor, channels):
        positions = tensor.shape[1:]
        if None in positions or not positions or positions[channels.axis - 1] != channels.count:
            return _Channels(_never_dying(1), 1)
        spread = [1] * len(positions)
        spread[channels.axis - 1] = -1
        order = np.broadcast_to(np.arange(channels.count).reshape(spread), positions)
        if layer.data_format == "channels_first":  # Keras moves the channels to the end before it flattens
            order = np.moveaxis(order, 0, -1)
        return _Channels(channels.producers[:, order.ravel()], 1)

    @staticmethod
    def merge(layer, tensors, inputs, output):
        axis, rank = inputs[0].axis, len(output.shape)
        if {(c.axis, len(t.shape)) for c, t in zip(inputs, tensors, strict=True)} != {(axis, rank)}:
            return _immortal(output)
        if isinstance(layer, _ELEMENTWISE_MERGES):
            if len({c.count for c in inputs}) > 1:  # one is broadcast
                return _immortal(output)
            return _Channels(_stack([c.producers for c in inputs]), axis)
        if layer.axis % rank != axis:
            return _immortal(output)
        depth = max(len(c.producers) for c in inputs)
        return _Channels(np.concatenate([np.resize(c.producers, (depth, c.count)) for c in inputs], axis=1), axis)

    def visit_twin(self, layer, tensor, channels, output):
        known = self.reads_channels(layer, tensor, channels.axis)
        producers = self.visit_kernels(layer, channels.producers if known else None)
        if not _is_elementwise(layer) or not self.writes_channels(layer):
            return _immortal(output)
        return _Channels(producers, _channel_axis(layer, len(output.shape)))

    def visit_kernels(self, layer, inputs=None):
        for name in layer.kernel_names:
            inputs = self.visit_kernel(layer, name, inputs)
        return inputs

    @staticmethod
    def reads_channels(layer, tensor, axis):
        """Whether the kernel sums over the channels' axis."""
        if isinstance(layer, EinsumDense):
            inputs, kernel, output = einsum_letters(layer.equation)
            if set(kernel) - set(output) != {inputs[-1]}:
                return False
        return axis == _channel_axis(layer, len(tensor.shape))

    @staticmethod
    def writes_channels(layer):
        """Whether the kernel's channels are the last axis of the output, and constant along the others."""
        if not isinstance(layer, EinsumDense):
            return True
        _, kernel, output = einsum_letters(layer.equation)
        return set(kernel) & set(output) == {output[-1]} and layer.bias_axes in (None, "", output[-1])

    def visit_kernel(self, layer, name, inputs):
        channel_format = layer.format_of(name)
        in_count = self.inputs_of(layer, name, channel_format)
        if inputs is None or inputs.shape[1] != in_count:  # not the channels: assume that they never die
            inputs = _never_dying(in_count)
        node = self.nodes.get((id(layer), name))
        if node is None:
            depthwise = isinstance(layer, DepthwiseConv2D) or name == "depthwise_kernel"
            groups = in_count if depthwise else getattr(layer, "groups", 1)
            exact = _is_exact(layer, channel_format.kernel_shape)
            node = KernelNode(
                layer, name, self.offset, channel_format.channels, channel_format.fan_in, groups, inputs, exact
            )
            self.nodes[(id(layer), name)] = node
            self.offset += node.channels
        else:  # a shared layer: the input is alive if it is alive in any of the calls
            node.inputs = _stack([node.inputs, inputs])
        return np.arange(node.offset, node.offset + node.channels)[None]

    @staticmethod
    def inputs_of(layer, name, channel_format):
        shape = channel_format.kernel_shape
        if isinstance(layer, EinsumDense):
            return channel_format.fan_in
        if isinstance(layer, Conv2DTranspose):
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
    tracer.run(model, [_immortal(t) for t in model.inputs])
    return list(tracer.nodes.values())
