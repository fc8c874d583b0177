"""Which axes of a kernel number its output channels."""

import math

from keras import ops

__all__ = ["KernelAxes", "einsum_letters"]


class KernelAxes:
    """One kernel of a layer by name, and its axes.

    Attributes:
        name: attribute of the layer that holds the kernel, e.g. ``"kernel"``.
        kernel_shape: tuple of int.
        channel_axes, other_axes: the axes that number the output channels, and the rest.
        broadcast_shape: shape in which one value per channel broadcasts against the kernel.
        channels: ``C``.
        fan_in: weights per channel.
    """

    def __init__(self, name, kernel_shape, channel_axes):
        self.name = name
        self.kernel_shape = tuple(kernel_shape)
        self.channel_axes = tuple(axis % len(kernel_shape) for axis in channel_axes)
        self.other_axes = tuple(a for a in range(len(kernel_shape)) if a not in self.channel_axes)
        self.broadcast_shape = tuple(d if a in self.channel_axes else 1 for a, d in enumerate(kernel_shape))
        self.channels = math.prod(self.broadcast_shape)
        self.fan_in = math.prod(kernel_shape) // self.channels

    @property
    def prefix(self):
        """What the names of the variables that belong to the kernel begin with: ``"depthwise_"``, or nothing."""
        return self.name.removesuffix("kernel")

    def spread(self, per_channel):
        """Reshape a ``(C,)`` vector so that it broadcasts against the kernel."""
        return ops.reshape(per_channel, self.broadcast_shape)


def einsum_letters(equation):
    """The letters of the inputs, of the kernel and of the output: ``("abc", "cd", "abd")`` for ``"abc,cd->abd"``."""
    inputs, rest = equation.replace(" ", "").split(",")
    return inputs, *rest.split("->")
