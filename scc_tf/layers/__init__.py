"""Compressed Keras layers: self-compressing (`Dense`, …), weight-sharing and masked ones, and their registry."""

from scc_tf.layers.compressed import CompressedKernels
from scc_tf.layers.conv import (
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    DepthwiseConv2D,
    SeparableConv2D,
    WeightSharingConv1D,
    WeightSharingConv2D,
    WeightSharingConv2DTranspose,
    WeightSharingDepthwiseConv2D,
    WeightSharingSeparableConv2D,
)
from scc_tf.layers.dense import Dense, EinsumDense, WeightSharingDense, WeightSharingEinsumDense
from scc_tf.layers.frozen import frozen_variables, is_frozen
from scc_tf.layers.masked import Masked
from scc_tf.layers.registry import KernelLayout, entries, entry_of, kernels_of, layout_of
from scc_tf.layers.self_compressing import ChannelFormat, SelfCompressing, check_format, self_compressing_layers
from scc_tf.layers.weight_sharing import SharedKernel, WeightSharing, kernel_constraints, weight_sharing_layers

__all__ = [
    "ChannelFormat",
    "CompressedKernels",
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "DepthwiseConv2D",
    "EinsumDense",
    "KernelLayout",
    "Masked",
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
    "entries",
    "entry_of",
    "frozen_variables",
    "is_frozen",
    "kernel_constraints",
    "kernels_of",
    "layout_of",
    "self_compressing_layers",
    "weight_sharing_layers",
]
