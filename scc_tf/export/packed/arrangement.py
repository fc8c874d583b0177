"""The shape and order in which the entries of a kernel are coded."""

import math

import numpy as np

__all__ = ["Arrangement"]


class Arrangement:
    """One kernel as ``(height, width, inputs, channels)``, the shape that `scc_tf.coding` knows.

    Args:
        layout: `scc_tf.layers.KernelLayout` of the kernel.

    Attributes:
        shape: the four numbers.
    """

    def __init__(self, layout):
        self._axes = layout.other_axes + layout.channel_axes
        self._sizes = [layout.shape[axis] for axis in self._axes]
        others = [layout.shape[axis] for axis in layout.other_axes]
        if layout.is_depthwise:
            others = [*others, 1]
        if layout.input_axis is None or len(others) > 3:
            others = [math.prod(others)]
        self.shape = (*[1] * (3 - len(others)), *others, layout.channels)

    def coded(self, kernel):
        """An array in the kernel's shape, rearranged."""
        return np.asarray(kernel).transpose(self._axes).reshape(self.shape)

    def kernel(self, coded):
        """The array that `coded` took."""
        return coded.reshape(self._sizes).transpose(np.argsort(self._axes))
