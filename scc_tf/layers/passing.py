"""Layers without kernels that keep channels apart: how the channels of the output follow from those of the inputs."""

import dataclasses

import keras
import numpy as np

from scc_tf.layers.registry import Entry, add_entry, entry_of

__all__ = ["HOMOGENEOUS", "Channels", "channel_axis", "evaluate", "is_elementwise", "padding_place", "route"]

HOMOGENEOUS = (None, keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)
_ELEMENTWISE = (  # activations; softmax and the like mix the channels
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
    return getattr(layer, "activation", None) in _ELEMENTWISE


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
    known = (0 < axis < len(t.shape) and t.shape[axis] is not None for t, axis in zip(tensors, axes, strict=True))
    entry = entry_of(layer)
    if entry is None or entry.route is None or not all(known):
        return None
    return entry.route(layer, tensors, axes, output)


def _same(count):
    return np.arange(count)[None]


def _of_one(rule):
    """A route for a layer of one input; a second one would be a mask."""
    return lambda layer, tensors, axes, output: rule(layer, tensors[0], axes[0], output) if len(tensors) == 1 else None


@_of_one
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


def _merge(layer, tensors, axes, output):
    del layer
    kinds = {(axis, len(t.shape), t.shape[axis]) for axis, t in zip(axes, tensors, strict=True)}
    if len(kinds) > 1 or len(output.shape) != len(tensors[0].shape):  # one is broadcast along the channels
        return None
    return Channels(tuple(_same(t.shape[axis]) for axis, t in zip(axes, tensors, strict=True)), axes[0])


def _concatenate(layer, tensors, axes, output):
    axis, rank = axes[0], len(output.shape)
    if {(a, len(t.shape)) for a, t in zip(axes, tensors, strict=True)} != {(axis, rank)}:
        return None
    if layer.axis % rank != axis:
        return _merge(layer, tensors, axes, output)
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


@_of_one
def _flatten(layer, tensor, axis, output):
    numbers = _numbered(tensor, axis)
    if numbers is None or len(output.shape) != 2:
        return None
    if layer.data_format == "channels_first":  # Keras moves the channels to the end before it flattens
        numbers = np.moveaxis(numbers, 0, -1) if numbers.ndim > 1 else numbers
    return Channels((numbers.reshape(1, -1),), 1)


@_of_one
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


@_of_one
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


def evaluate(function, constant, dtype):
    """An elementwise function of constants ``(C,)``, evaluated as a model would; NaN, a channel that varies, stays."""
    values = keras.ops.cast(np.nan_to_num(constant), dtype)
    result = np.asarray(keras.ops.convert_to_numpy(function(values)), np.float64).ravel()
    return np.where(np.isnan(constant), np.nan, result)


def _called(layer, constant, training):
    del training
    return evaluate(layer.call, constant, layer.variable_dtype)


def _normalized(layer, constant, training):
    def values(variable, default=None):
        return default if variable is None else np.asarray(keras.ops.convert_to_numpy(variable), np.float64)

    beta, gamma = values(layer.beta if layer.center else None, 0.0), values(layer.gamma if layer.scale else None, 1.0)
    mean = constant if training and layer.trainable else values(layer.moving_mean)
    return (constant - mean) / np.sqrt(values(layer.moving_variance) + layer.epsilon) * gamma + beta


def _is_linear_above_zero(layer):
    return layer.max_value is None and layer.threshold == 0


_APART = (  # a constant channel in is the same one out
    *("Dropout", "GaussianNoise", "Identity", "SpatialDropout1D", "SpatialDropout2D"),
    *(f"{kind}{rank}D" for kind in ("AveragePooling", "MaxPooling", "Cropping", "UpSampling") for rank in (1, 2)),
    *(f"Global{kind}Pooling{rank}D" for kind in ("Average", "Max") for rank in (1, 2)),
)
_FUNCTIONS = {  # a constant changes as any value does; whether a positive factor passes through
    keras.layers.Activation: lambda layer: layer.activation in HOMOGENEOUS,
    keras.layers.ELU: lambda layer: False,
    keras.layers.LeakyReLU: lambda layer: True,
    keras.layers.PReLU: lambda layer: True,
    keras.layers.ReLU: _is_linear_above_zero,
    keras.layers.Rescaling: lambda layer: False,
}
_MERGES = {  # of constants; NaN wins
    keras.layers.Add: lambda values: np.sum(values, axis=0),
    keras.layers.Average: lambda values: np.mean(values, axis=0),
    keras.layers.Maximum: lambda values: np.max(values, axis=0),
    keras.layers.Minimum: lambda values: np.min(values, axis=0),
    keras.layers.Subtract: lambda values: values[0] - values[1],
    keras.layers.Multiply: lambda values: np.where((values == 0).any(axis=0), 0, np.prod(values, axis=0)),
}
for _name in _APART:
    add_entry(Entry(getattr(keras.layers, _name), route=_per_channel))
for _stock, _homogeneous in _FUNCTIONS.items():
    add_entry(Entry(_stock, route=_per_channel, constant=_called, is_homogeneous=_homogeneous))
for _stock, _reduced in _MERGES.items():
    add_entry(Entry(_stock, route=_merge, merge=_reduced))
add_entry(Entry(keras.layers.BatchNormalization, route=_per_channel, constant=_normalized))
add_entry(Entry(keras.layers.Concatenate, route=_concatenate))
add_entry(Entry(keras.layers.Flatten, route=_flatten))
add_entry(Entry(keras.layers.Reshape, route=_reshape))
for _stock in (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D):
    add_entry(Entry(_stock, route=_zero_padding))
