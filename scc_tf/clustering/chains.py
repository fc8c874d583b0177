"""The places of a model where filters can be merged: a layer, its normalization, and all that reads its channels."""

import dataclasses

import keras
import numpy as np

from scc_tf.graph import Flow, KernelStep, RouteStep
from scc_tf.layers import entry_of
from scc_tf.layers.passing import HOMOGENEOUS, is_elementwise

__all__ = ["Chain", "Reader", "find_chains", "kernel_values"]

_PRODUCERS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Dense)  # kernels (..., inputs, channels)


@dataclasses.dataclass(frozen=True)
class Reader:
    """A kernel that reads the channels of a chain.

    Attributes:
        layer: whose kernel it is.
        inputs: int array ``(C, P)``: for every channel, the inputs of the kernel that it is; ``P`` is 1, or the number
            of positions where a Flatten stands before it.
    """

    layer: keras.layers.Layer
    inputs: np.ndarray

    def slices(self):
        """The weights that every channel is multiplied by, ``(C, P, …)``."""
        return np.moveaxis(kernel_values(self.layer), -2, 0)[self.inputs]

    def assign(self, slices):
        """Give every channel other weights, in the shape of `slices`."""
        rows = np.moveaxis(kernel_values(self.layer), -2, 0).copy()
        rows[self.inputs] = slices
        self.layer.kernel.assign(np.moveaxis(rows, 0, -2))


@dataclasses.dataclass(frozen=True)
class Chain:
    """A convolution or Dense layer whose channels meet nobody else's until other kernels read them.

    Attributes:
        layer: the convolution or Dense layer, with ``C`` channels.
        norm: the BatchNormalization that follows at once, or None.
        readers: tuple of `Reader`.
        homogeneous: whether a positive factor of a channel passes through what stands between the two: ReLU and its
            leaky form, pooling, dropout.
    """

    layer: keras.layers.Layer
    norm: keras.layers.BatchNormalization | None
    readers: tuple
    homogeneous: bool

    @property
    def name(self):
        """Of the layer."""
        return self.layer.name

    @property
    def channels(self):
        """``C``."""
        return self.layer.kernel.shape[-1]

    def filters(self):
        """The kernel's filters, flattened, float64 ``(C, F)``."""
        return kernel_values(self.layer).reshape(-1, self.channels).T

    def assign_filters(self, filters):
        """Set the kernel; in the shape of `filters`."""
        self.layer.kernel.assign(filters.T.reshape(self.layer.kernel.shape))


def kernel_values(layer):
    """The kernel of a layer, float64."""
    return keras.ops.convert_to_numpy(layer.kernel).astype(np.float64)


def find_chains(model):
    """Find the layers of a model whose filters can be merged, in the order of the forward pass.

    A chain is a Conv1D, Conv2D or Dense layer without groups; at once behind it a BatchNormalization or none; then
    activations that treat every value on its own, pooling, up-sampling, cropping, padding, dropout, Flatten; then one
    or more kernels of the same three kinds, each of which reads the channels. No other layer reads them on the way,
    they are no output of the model, and every layer is called once. So in a residual block the inner convolution is a
    chain, and what is added to the shortcut is none.

    Self-compressing, weight-sharing and masked layers are left alone: cluster filters before these conversions.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="a", activation="relu"),
        ...     keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> [chain.name for chain in find_chains(model)]
        ['a']
    """
    search = _Search(model)
    found = (search.chain(step) for step in search.flow.steps if isinstance(step, KernelStep))
    return [chain for chain in found if chain]


class _Search:
    def __init__(self, model):
        self.flow = Flow(model)
        self.readers, self.calls = {}, {}  # id of a signal -> the steps that read it; id of a layer -> its steps
        for step in self.flow.steps:
            for signal in {id(s): s for s in step.sources}.values():
                self.readers.setdefault(id(signal), []).append(step)
            self.calls[id(step.layer)] = self.calls.get(id(step.layer), 0) + 1
        self.outputs = {id(signal) for signal in self.flow.outputs}

    def chain(self, producer):
        if not self.is_plain_kernel(producer) or not is_elementwise(producer.layer):
            return None
        activation = producer.layer.activation
        norm, homogeneous, signal = None, activation in HOMOGENEOUS, producer.target
        while (step := self.only_route(signal)) is not None:
            if isinstance(step.layer, keras.layers.BatchNormalization):
                if signal is not producer.target or activation is not keras.activations.linear:
                    return None  # what was merged before it would meet other statistics
                norm = step.layer
            elif step.layer.weights:
                return None
            homogeneous = homogeneous and entry_of(step.layer).is_homogeneous(step.layer)
            signal = step.target
        readers = self.readers.get(id(signal), [])
        reading = all(self.is_plain_kernel(step) and step.known_input for step in readers)
        if not readers or not reading or id(signal) in self.outputs:
            return None
        channels = self.flow.atoms[id(producer.layer), producer.layout.name]
        order = np.argsort(channels)
        numbers = order[np.searchsorted(channels, signal.atoms, sorter=order)]  # whose channel each later one is
        inputs = np.argsort(numbers, kind="stable").reshape(len(channels), -1)
        return Chain(producer.layer, norm, tuple(Reader(step.layer, inputs) for step in readers), homogeneous)

    def only_route(self, signal):
        """The step that reads a signal, if it is one alone that keeps its channels apart, and all of them."""
        steps = self.readers.get(id(signal), [])
        if len(steps) != 1 or not isinstance(steps[0], RouteStep) or id(signal) in self.outputs:
            return None
        step = steps[0]
        alone = len(step.sources) == 1 and self.calls[id(step.layer)] == 1
        apart = len(step.channels.sources[0]) == 1 and np.isin(step.target.atoms, signal.atoms).all()
        return step if alone and apart else None

    def is_plain_kernel(self, step):
        layer = step.layer
        plain = type(layer) in _PRODUCERS and getattr(layer, "data_format", None) != "channels_first"
        return plain and isinstance(step, KernelStep) and step.layout.groups == 1 and self.calls[id(layer)] == 1
