"""Two families of compressed layers: self-compressing twins of the Keras layers, and those that share weights."""

from scc_tf.layers.axes import KernelAxes, einsum_letters
from scc_tf.layers.effective import EffectiveKernels
from scc_tf.layers.frozen import frozen_variables, is_frozen
from scc_tf.layers.self_compressing import (
    TWINS,
    ChannelFormat,
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    EinsumDense,
    SelfCompressing,
    SeparableConv2D,
    check_format,
    self_compressing_layers,
)
from scc_tf.layers.weight_sharing import (
    WEIGHT_SHARING,
    SharedKernel,
    WeightSharing,
    WeightSharingConv1D,
    WeightSharingConv2D,
    WeightSharingConv2DTranspose,
    WeightSharingDense,
    WeightSharingDepthwiseConv2D,
    WeightSharingEinsumDense,
    WeightSharingSeparableConv2D,
    kernel_constraints,
    weight_sharing_layers,
)

__all__ = [
    "STOCK",
    "TWINS",
    "WEIGHT_SHARING",
    "ChannelFormat",
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "DepthwiseConv2D",
    "EffectiveKernels",
    "EinsumDense",
    "KernelAxes",
    "SelfCompressing",
    "SeparableConv2D",
    "SharedKernel",
    "WeightSharing",
    "WeightSharingConv1D",
    "WeightSharingConv2D",
    "WeightSharingConv2DTranspose",
    "WeightSharingDense",
    "WeightSharingDepthwiseConv2D",
    "WeightSharingEinsumDense",
    "WeightSharingSeparableConv2D",
    "check_format",
    "einsum_letters",
    "frozen_variables",
    "is_frozen",
    "kernel_constraints",
    "self_compressing_layers",
    "weight_sharing_layers",
]

STOCK = {layer: stock for family in (TWINS, WEIGHT_SHARING) for stock, layer in family.items()}
