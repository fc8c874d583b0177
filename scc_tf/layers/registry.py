"""One entry per Keras class: its kernels and their axes, how channels run through it, and its compressed forms.

A layer is added by one entry, in a file of its family (`dense`, `conv`, `passing`). Everything else asks here.
"""

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from scc_tf.layers.compressed import CompressedKernels

__all__ = [
    "Entry",
    "KernelLayout",
    "KernelSpec",
    "add_entry",
    "elements",
    "entries",
    "entry_of",
    "kernels_of",
    "layout_of",
]


class KernelSpec:
    """What layers of one class do with one of their kernels; this one is ``(…, inputs, channels)``.

    Args:
        name: attribute of the layer that holds the kernel.
    """

    is_depthwise = False  # each input has channels of its own
    any_order = False  # the TFLite converter may permute the axes on either side

    def __init__(self, name="kernel"):
        self.name = name
        self.prefix = name.removesuffix("kernel") if name.endswith("kernel") else f"{name}_"  # of variables of its own

    def channel_axes(self, layer):
        """The axes that number the output channels."""
        del layer
        return (-1,)

    def input_axis(self, layout):
        """The axis that numbers the inputs of one group; None where several do."""
        del layout
        return -2

    def is_exact(self, layout):
        """Whether a constant input adds the same to every position of the output (no padding with zeros)."""
        return set(layout.shape[:-2]) <= {1} or getattr(layout.layer, "padding", "valid") == "valid"

    def reads_channels(self, layer, rank, axis):
        """Whether the kernel sums over ``axis`` of an input of that rank, one entry per input."""
        return axis == (1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1)

    def writes_channels(self, layer):
        """Whether the kernel's channels are the channels of the output, and constant along the other axes."""
        del layer
        return True

    def positions(self, layout, inputs, outputs, channels):
        """How often each weight is used: from the shapes of input and output, and the channels of the latter."""
        del inputs
        return elements(outputs, layout.layer) // channels


def elements(shape, layer):
    """Numbers in one example of a tensor; a ValueError if a size is open."""
    if None in shape[1:]:
        raise ValueError(f"Expected a model with inputs of fixed size. Received: {shape} at layer {layer.name!r}")
    return math.prod(shape[1:])


class KernelLayout:
    """One kernel of a layer, and its axes.

    The inputs of one group reach the channels of the same group only; a depthwise kernel has one group per input.

    Attributes:
        layer, name, shape: where the kernel is, and its shape.
        channel_axes, other_axes: the axes that number the output channels, and the rest.
        input_axis: the axis that numbers the inputs of one group (for a depthwise kernel: all of them); None where
            several do.
        channels, inputs, groups: ``C``, ``I`` and ``G``.
        fan_in: weights per channel.
    """

    def __init__(self, layer, spec, shape):
        self.layer, self.spec, self.name, self.shape = layer, spec, spec.name, tuple(shape)
        self.is_depthwise, self.prefix = spec.is_depthwise, spec.prefix
        rank = len(self.shape)
        self.channel_axes = tuple(axis % rank for axis in spec.channel_axes(layer))
        self.other_axes = tuple(axis for axis in range(rank) if axis not in self.channel_axes)
        self.broadcast_shape = tuple(d if a in self.channel_axes else 1 for a, d in enumerate(self.shape))
        self.channels = math.prod(self.broadcast_shape)
        self.fan_in = math.prod(self.shape) // self.channels
        axis = spec.input_axis(self)
        self.input_axis = None if axis is None else axis % rank
        if axis is None:
            self.inputs, self.groups = self.fan_in, 1
        elif spec.is_depthwise:
            self.inputs = self.groups = self.shape[axis]
        else:
            self.groups = getattr(layer, "groups", 1)
            self.inputs = self.shape[axis] * self.groups

    @property
    def keeps_inputs_apart(self):
        """Whether there are as many groups as inputs, and so no sums over them."""
        return self.inputs == self.groups > 1

    @property
    def exact(self):
        """See `KernelSpec.is_exact`."""
        return self.spec.is_exact(self)

    @property
    def label(self):
        """``"layer"``, or ``"layer/kernel"`` where a layer has several kernels."""
        return self.layer.name if self.name == "kernel" else f"{self.layer.name}/{self.name}"

    @property
    def weights_per_input(self):
        """Weights of one channel that read one input (the area of a filter)."""
        return self.fan_in * self.groups // self.inputs

    def spread(self, per_channel):
        """Values ``(C,)`` in a shape that broadcasts against the kernel; a tensor, or an array if given one."""
        return (np if isinstance(per_channel, np.ndarray) else ops).reshape(per_channel, self.broadcast_shape)

    def rows(self, values):
        """Values in the kernel's shape, as ``(groups, inputs of a group, weights per input, channels of a group)``."""
        axes = self.channel_axes
        flat = np.moveaxis(np.asarray(values), axes, range(-len(axes), 0)).reshape(-1, self.channels)  # input last
        rows = flat.reshape(self.weights_per_input, self.inputs // self.groups, self.groups, -1)
        return rows.transpose(2, 1, 0, 3)

    def values(self):
        """The kernel that the layer multiplies by, as an array."""
        compressed = isinstance(self.layer, CompressedKernels)
        kernel = self.layer.quantized(self.name) if compressed else getattr(self.layer, self.name)
        return np.asarray(ops.convert_to_numpy(kernel))

    def reads_channels(self, rank, axis):
        """See `KernelSpec.reads_channels`."""
        return self.spec.reads_channels(self.layer, rank, axis)

    def writes_channels(self):
        """See `KernelSpec.writes_channels`."""
        return self.spec.writes_channels(self.layer)


def _unchanged(layer, constant, training):
    del layer, training
    return constant


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of one Keras class.

    Attributes:
        stock: the class.
        kernels: its `KernelSpec`, in the order in which they are applied; empty for layers that only pass channels on.
        route: ``(layer, tensors, axes, output) -> Channels or None``, see `scc_tf.layers.passing`.
        merge: for layers with several inputs, ``(inputs, C) -> (C,)``: what constant channels become; NaN varies.
        constant: ``(layer, constant, training) -> constant``: what a constant channel of one input becomes.
        is_homogeneous: whether a positive factor of a channel passes through a layer.
        self_compressing, weight_sharing, masked, masked_self_compressing: classes, None for layers without kernels.
    """

    stock: type
    kernels: tuple = ()
    route: Callable | None = None
    merge: Callable | None = None
    constant: Callable = _unchanged
    is_homogeneous: Callable = lambda layer: True
    self_compressing: type | None = None
    weight_sharing: type | None = None
    masked: type | None = None
    masked_self_compressing: type | None = None


_ENTRIES = {}


def add_entry(entry):
    """Make an entry known."""
    _ENTRIES[entry.stock] = entry


def entries():
    """The entries of all classes with kernels, in the order in which they were added."""
    return [entry for entry in _ENTRIES.values() if entry.kernels]


def entry_of(layer):
    """The `Entry` of a layer's class, stock, compressed or masked; None if it has none. A subclass may do anything."""
    return getattr(type(layer), "entry", None) or _ENTRIES.get(type(layer))


def layout_of(layer, name="kernel"):
    """The `KernelLayout` of a kernel of a built layer."""
    spec = next(spec for spec in entry_of(layer).kernels if spec.name == name)
    return KernelLayout(layer, spec, getattr(layer, name).shape)


def kernels_of(layer):
    """The kernels of a layer as a tuple of `KernelLayout`, in the order in which they are applied.

    Empty for a layer without compressed forms, not built, or whose kernel is not what it multiplies by (quantized by
    Keras, or with a LoRA update).
    """
    entry = entry_of(layer)
    if entry is None or not isinstance(layer, keras.Layer) or not layer.built:
        return ()
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return ()
    return tuple(layout_of(layer, spec.name) for spec in entry.kernels)
