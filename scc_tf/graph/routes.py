"""How the channels of a layer's output follow from those of its inputs, for layers that keep channels apart."""

import dataclasses

import keras
import numpy as np

__all__ = ["Channels", "channel_axis", "is_elementwise", "padding_place", "route", "spans_channels"]

_PER_CHANNEL = (  # a constant channel in is a constant channel out
    keras.layers.Activation,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GaussianNoise,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Identity,
    keras.layers.LeakyReLU,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.PReLU,
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
    keras.layers.Multiply,
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


@dataclasses.dataclass(frozen=True)
class Channels:
    """Channels of a layer's output in terms of those of its inputs.

    Attributes:
        sources: one int array ``(P, C)`` per input tensor: the channels of that input that channel ``c`` of the output
            is made from; -1 is none. A channel with no source at all is zero (padding).
        axis: the axis of the output on which the channels stand.
        padded: whether zeros are put around the positions.
    """

    sources: tuple
    axis: int
    padded: bool = False


def channel_axis(layer, rank):
    """Where a layer expects its channels in a tensor of that rank."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.axis % rank
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def is_elementwise(layer):
    """Whether the layer's activation, if it has one, treats every value on its own."""
    return getattr(layer, "activation", None) in _ELEMENTWISE_ACTIVATIONS


def spans_channels(tensor, axis):
    """Whether a tensor has a known number of channels on that axis."""
    return 0 < axis < len(tensor.shape) and tensor.shape[axis] is not None


def route(layer, tensors, axes, output):
    """Follow the channels through one call of a layer that has no kernel.

    Args:
        layer: Keras layer or operation.
        tensors: its input tensors.
        axes: for each of them, the axis on which the channels stand.
        output: its output tensor.

    Returns:
        `Channels`, or None if the layer mixes channels or is not known here.
    """
    if not all(spans_channels(t, a) for t, a in zip(tensors, axes, strict=True)):
        return None
    kind = type(layer)  # a subclass may do anything
    if kind in _ELEMENTWISE_MERGES:
        return _merge(tensors, axes, output)
    if kind is keras.layers.Concatenate:
        return _concatenate(layer, tensors, axes, output)
    if len(tensors) == 1:  # not with a mask
        for kinds, rule in _RULES:
            if kind in kinds:
                return rule(layer, tensors[0], axes[0], output)
    return None


def _same(count):
    return np.arange(count)[None]


def _per_channel(layer, tensor, axis, output):
    out_axis = min(axis, len(output.shape) - 1)  # global pooling drops the positions
    names_an_axis = isinstance(layer, keras.layers.BatchNormalization) or hasattr(layer, "data_format")
    if names_an_axis and channel_axis(layer, len(tensor.shape)) != axis:
        return None
    if isinstance(layer, keras.layers.Rescaling) and (np.ndim(layer.scale) or np.ndim(layer.offset)):
        return None
    if isinstance(layer, keras.layers.PReLU):
        positions = (1,) * (len(tensor.shape) - 2)
        if layer.alpha.shape[:-1] != positions or axis != len(tensor.shape) - 1:
            return None  # a slope for every position
    if not is_elementwise(layer) or output.shape[out_axis] != tensor.shape[axis]:
        return None
    return Channels((_same(tensor.shape[axis]),), out_axis)


def _merge(tensors, axes, output):
    kinds = {(axis, len(t.shape), t.shape[axis]) for axis, t in zip(axes, tensors, strict=True)}
    if len(kinds) > 1 or len(output.shape) != len(tensors[0].shape):  # one is broadcast along the channels
        return None
    return Channels(tuple(_same(t.shape[axis]) for axis, t in zip(axes, tensors, strict=True)), axes[0])


def _concatenate(layer, tensors, axes, output):
    axis, rank = axes[0], len(output.shape)
    if {(a, len(t.shape)) for a, t in zip(axes, tensors, strict=True)} != {(axis, rank)}:
        return None
    if layer.axis % rank != axis:
        return _merge(tensors, axes, output)
    sources, offset = [], 0
    for tensor in tensors:
        source = np.full((1, output.shape[axis]), -1)
        source[0, offset : offset + tensor.shape[axis]] = np.arange(tensor.shape[axis])
        sources.append(source)
        offset += tensor.shape[axis]
    return Channels(tuple(sources), axis)


def _numbered(tensor, axis):
    """The channel of every value of one example, in the tensor's shape; None if that is not known."""
    shape = tensor.shape[1:]
    if None in shape:
        return None
    spread = [1] * len(shape)
    spread[axis - 1] = -1
    return np.broadcast_to(np.arange(shape[axis - 1]).reshape(spread), shape)


def _flatten(layer, tensor, axis, output):
    numbers = _numbered(tensor, axis)
    if numbers is None or len(output.shape) != 2:
        return None
    if layer.data_format == "channels_first":  # Keras moves the channels to the end before it flattens
        numbers = np.moveaxis(numbers, 0, -1) if numbers.ndim > 1 else numbers
    return Channels((numbers.reshape(1, -1),), 1)


def _reshape(layer, tensor, axis, output):
    """Each channel of the output is the last axis's entry, made from every channel that it holds."""
    del layer
    numbers = _numbered(tensor, axis)
    if numbers is None or None in output.shape[1:] or len(output.shape) < 2:
        return None
    columns = [np.unique(column) for column in numbers.reshape(-1, output.shape[-1]).T]
    depth = max(map(len, columns))
    source = np.stack([np.pad(column, (0, depth - len(column)), mode="edge") for column in columns], axis=1)
    return Channels((source,), len(output.shape) - 1)


def _zero_padding(layer, tensor, axis, output):
    """Padding of the positions keeps the channels; that of the channels' own axis adds some that are zero."""
    sides, place = np.reshape(layer.padding, (-1, 2)).tolist(), padding_place(layer, axis)
    beside = (0, 0) if place is None else sides.pop(place)
    source = np.pad(np.arange(tensor.shape[axis]), beside, constant_values=-1)[None]
    return Channels((source,), axis, np.any(sides)) if source.shape[1] == output.shape[axis] else None


def padding_place(layer, axis):
    """Which entry of a zero padding's ``padding`` pads that axis; None if none does."""
    place = axis - (2 if getattr(layer, "data_format", None) == "channels_first" else 1)
    return place if 0 <= place < len(np.reshape(layer.padding, (-1, 2))) else None


_RULES = (
    ((keras.layers.Flatten,), _flatten),
    ((keras.layers.Reshape,), _reshape),
    ((keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D), _zero_padding),
    (_PER_CHANNEL, _per_channel),
)
