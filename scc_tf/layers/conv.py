"""Convolutions: plain, depthwise, separable, transposed."""

import keras

from scc_tf.layers.forms import add_layer
from scc_tf.layers.registry import KernelSpec, elements

__all__ = [
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "DepthwiseConv2D",
    "SeparableConv2D",
    "WeightSharingConv1D",
    "WeightSharingConv2D",
    "WeightSharingConv2DTranspose",
    "WeightSharingDepthwiseConv2D",
    "WeightSharingSeparableConv2D",
]


class _Depthwise(KernelSpec):
    """``(…, inputs, multiplier)``: both together number the channels."""

    is_depthwise = True

    def channel_axes(self, layer):
        return (-2, -1)


class _Pointwise(KernelSpec):
    """The second kernel of a separable convolution."""

    def is_exact(self, layout):
        return True


class _Transposed(KernelSpec):
    """``(…, filters, inputs)``."""

    def channel_axes(self, layer):
        return (-2,)

    def input_axis(self, layout):
        return -1

    def is_exact(self, layout):  # the border, and the gaps of a stride, get fewer terms
        return set(layout.shape[:-2]) <= {1} and set(layout.layer.strides) == {1}

    def positions(self, layout, inputs, outputs, channels):
        return elements(inputs, layout.layer) // layout.inputs


Conv1D, WeightSharingConv1D = add_layer(
    keras.layers.Conv1D, [KernelSpec()], "kernel ``(width, inputs, filters)``, the channels are the filters"
)
Conv2D, WeightSharingConv2D = add_layer(
    keras.layers.Conv2D, [KernelSpec()], "kernel ``(h, w, inputs, filters)``, the channels are the filters"
)
DepthwiseConv2D, WeightSharingDepthwiseConv2D = add_layer(
    keras.layers.DepthwiseConv2D,
    [_Depthwise()],
    "kernel ``(h, w, inputs, multiplier)``, ``inputs * multiplier`` channels",
)
SeparableConv2D, WeightSharingSeparableConv2D = add_layer(
    keras.layers.SeparableConv2D,
    [_Depthwise("depthwise_kernel"), _Pointwise("pointwise_kernel")],
    "the depthwise and the pointwise kernel each have their own",
)
Conv2DTranspose, WeightSharingConv2DTranspose = add_layer(
    keras.layers.Conv2DTranspose,
    [_Transposed()],
    "kernel ``(h, w, filters, inputs)``, the channels are the filters",
)
