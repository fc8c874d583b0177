"""Where a kernel has its inputs and its channels, for the stock Keras layers and their twins."""

import math

import keras
import numpy as np

from scc_tf.layers import (
    Conv2DTranspose,
    DepthwiseConv2D,
    EffectiveKernels,
    EinsumDense,
    SeparableConv2D,
    einsum_letters,
)
from scc_tf.masked_layers import twin_of

__all__ = ["KernelLayout", "kernels_of"]


class KernelLayout:
    """One kernel of a layer, and its axes.

    The inputs of one group reach the channels of the same group only; a depthwise kernel has one group per input.

    Attributes:
        layer, name: where the kernel is.
        shape: of the kernel.
        channel_axes: the axes that number the output channels.
        input_axis: the axis that numbers the inputs of one group (for a depthwise kernel: all of them); None where
            several do.
        channels: ``C``.
        inputs: ``I``.
        groups: ``G``.
        fan_in: weights per channel.
        exact: whether a constant input adds the same to every position of the output (no padding with zeros).
    """

    def __init__(self, layer, name):
        twin = twin_of(layer)
        self.layer, self.name = layer, name
        self.shape = tuple(getattr(layer, name).shape)
        rank = len(self.shape)
        self.channel_axes = tuple(axis % rank for axis in twin.channel_axes(layer, name))
        self.channels = math.prod(self.shape[axis] for axis in self.channel_axes)
        self.fan_in = math.prod(self.shape) // self.channels
        self.is_depthwise = issubclass(twin, DepthwiseConv2D) or name == "depthwise_kernel"
        self.input_axis = self._input_axis(twin)
        if self.input_axis is None:
            self.inputs, self.groups = self.fan_in, 1
        elif self.is_depthwise:
            self.inputs = self.groups = self.shape[self.input_axis]
        else:
            self.groups = getattr(layer, "groups", 1)
            self.inputs = self.shape[self.input_axis] * self.groups
        self.exact = self._is_exact(twin)

    def _input_axis(self, twin):
        if issubclass(twin, EinsumDense):
            others = [axis for axis in range(len(self.shape)) if axis not in self.channel_axes]
            return others[0] if len(others) == 1 else None
        if issubclass(twin, Conv2DTranspose):
            return len(self.shape) - 1
        return len(self.shape) - 2

    def _is_exact(self, twin):
        pointwise = set(self.shape[:-2]) <= {1}
        if issubclass(twin, Conv2DTranspose):  # the border, and the gaps of a stride, get fewer terms
            return pointwise and set(self.layer.strides) == {1}
        if issubclass(twin, EinsumDense):
            return True
        if issubclass(twin, SeparableConv2D) and self.name == "pointwise_kernel":
            return True
        return pointwise or getattr(self.layer, "padding", "valid") == "valid"

    @property
    def label(self):
        """``"layer"``, or ``"layer/kernel"`` where a layer has several kernels."""
        return self.layer.name if self.name == "kernel" else f"{self.layer.name}/{self.name}"

    @property
    def weights_per_input(self):
        """Weights ``A`` of one channel that read one input (the area of a filter)."""
        return self.fan_in * self.groups // self.inputs

    def rows(self, values):
        """Values in the kernel's shape, as ``(groups, inputs of a group, A, channels of a group)``."""
        axes = self.channel_axes
        flat = np.moveaxis(np.asarray(values), axes, range(-len(axes), 0)).reshape(-1, self.channels)  # input last
        rows = flat.reshape(self.weights_per_input, self.inputs // self.groups, self.groups, -1)
        return rows.transpose(2, 1, 0, 3)

    def spread(self, per_channel):
        """An array ``(C,)`` in a shape that broadcasts against the kernel."""
        shape = [size if axis in self.channel_axes else 1 for axis, size in enumerate(self.shape)]
        return np.reshape(per_channel, shape)

    def values(self):
        """The kernel that the layer multiplies by: quantized where the layer is self-compressing."""
        effective = isinstance(self.layer, EffectiveKernels)
        kernel = self.layer.effective(self.name) if effective else getattr(self.layer, self.name)
        return np.asarray(keras.ops.convert_to_numpy(kernel))

    def reads_channels(self, rank, axis):
        """Whether the kernel sums over ``axis`` of an input of that rank, one entry per input."""
        if isinstance(self.layer, keras.layers.EinsumDense):
            inputs, kernel, output = einsum_letters(self.layer.equation)
            summed = (set(inputs) | set(kernel)) - set(output)  # "abc,cd->ad" sums the positions too
            return summed == {inputs[-1]} and inputs[-1] in kernel and axis == rank - 1
        first = getattr(self.layer, "data_format", None) == "channels_first"
        return axis == (1 if first else rank - 1)

    def writes_channels(self):
        """Whether the kernel's channels are the channels of the output, and constant along the other axes."""
        if not isinstance(self.layer, keras.layers.EinsumDense):
            return True
        _, kernel, output = einsum_letters(self.layer.equation)
        return set(kernel) & set(output) == {output[-1]} and self.layer.bias_axes in (None, "", output[-1])


def kernels_of(layer):
    """The kernels of a layer as a tuple of `KernelLayout`, in the order in which they are applied.

    Empty for a layer without a self-compressing twin, not built, or whose kernel is not what it multiplies by
    (quantized by Keras, or with a LoRA update).
    """
    twin = twin_of(layer)
    if twin is None or not getattr(layer, "built", False):
        return ()
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return ()
    return tuple(KernelLayout(layer, name) for name in twin.kernel_names)
