"""The shape and order in which the entries of a kernel are coded."""

import math

import numpy as np

from scc_tf.layers import Dense, DepthwiseConv2D, EinsumDense
from scc_tf.masked_layers import twin_of

__all__ = ["Arrangement"]


class Arrangement:
    """One kernel as ``(height, width, inputs, channels)``, the shape that `scc_tf.coding` knows.

    Args:
        layer: stock layer of a class with twins, or such a twin, masked or not.
        axes: `scc_tf.layers.KernelAxes` of the kernel.

    Attributes:
        shape: the four numbers.
    """

    def __init__(self, layer, axes):
        twin = twin_of(layer)
        self._axes = axes.other_axes + axes.channel_axes
        self._sizes = [axes.kernel_shape[axis] for axis in self._axes]
        others = [axes.kernel_shape[axis] for axis in axes.other_axes]
        if issubclass(twin, Dense | EinsumDense):
            others = [math.prod(others)]
        elif issubclass(twin, DepthwiseConv2D) or axes.name == "depthwise_kernel":
            others = [*others, 1]
        if len(others) > 3:
            others = [math.prod(others)]
        self.shape = (*[1] * (3 - len(others)), *others, axes.channels)

    def coded(self, kernel):
        """An array in the kernel's shape, rearranged."""
        return np.asarray(kernel).transpose(self._axes).reshape(self.shape)

    def kernel(self, coded):
        """The array that `coded` took."""
        return coded.reshape(self._sizes).transpose(np.argsort(self._axes))
