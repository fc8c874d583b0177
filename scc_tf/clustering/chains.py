"""The places of a model where filters can be merged: a layer, its normalization, and all that reads its channels."""

import dataclasses

import keras
import numpy as np

from scc_tf.graph import KernelLayout, is_elementwise
from scc_tf.surgery.flow import Flow, KernelStep, RouteStep

__all__ = ["Chain", "Reader", "find_chains", "kernel_values"]

_PRODUCERS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Dense)  # kernels (..., inputs, channels)
_HOMOGENEOUS = (None, keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)


@dataclasses.dataclass(frozen=True)
class Reader:
    """A kernel that reads the channels of a chain.

    Attributes:
        layout: `scc_tf.graph.KernelLayout`.
        inputs: int array ``(C, P)``: for every channel, the inputs of the kernel that it is; ``P`` is 1, or the number
            of positions where a Flatten stands before it.
    """

    layout: KernelLayout
    inputs: np.ndarray

    @property
    def fan_in(self):
        """Weights of the kernel for each of its outputs."""
        return int(np.prod(self.layout.layer.kernel.shape[:-1]))

    def slices(self):
        """The weights that every channel is multiplied by, ``(C, P, …)``."""
        return np.moveaxis(kernel_values(self.layout.layer), -2, 0)[self.inputs]

    def assign(self, slices):
        """Give every channel other weights, in the shape of `slices`."""
        rows = np.moveaxis(kernel_values(self.layout.layer), -2, 0).copy()
        rows[self.inputs] = slices
        self.layout.layer.kernel.assign(np.moveaxis(rows, 0, -2))


@dataclasses.dataclass(frozen=True)
class Chain:
    """A convolution or Dense layer whose channels meet nobody else's until other kernels read them.

    Attributes:
        layout: `scc_tf.graph.KernelLayout` of its kernel, ``C`` channels.
        norm: the BatchNormalization that follows at once, or None.
        readers: tuple of `Reader`.
        homogeneous: whether a positive factor of a channel passes through what stands between the two: ReLU and its
            leaky form, pooling, dropout.
    """

    layout: KernelLayout
    norm: keras.layers.BatchNormalization | None
    readers: tuple
    homogeneous: bool

    @property
    def layer(self):
        """The convolution or Dense layer."""
        return self.layout.layer

    @property
    def name(self):
        """Of that layer."""
        return self.layer.name

    @property
    def channels(self):
        """``C``."""
        return self.layout.channels

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

    Args:
        model: built Sequential or functional model.

    Returns:
        List of `Chain`.

    Raises:
        ValueError: if the model is subclassed or not built.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="a", activation="relu"),
        ...     keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> [chain.name for chain in find_chains(model)]
        ['a']
    """
    return _Search(model).chains()


class _Search:
    def __init__(self, model):
        self.flow = Flow(model)
        self._readers = {}  # id of a signal -> the steps that read it
        self._calls = {}  # id of a layer -> number of its steps
        for step in self.flow.steps:
            for signal in {id(s): s for s in _sources(step)}.values():
                self._readers.setdefault(id(signal), []).append(step)
            self._calls[id(step.layer)] = self._calls.get(id(step.layer), 0) + 1
        self._outputs = {id(signal) for signal in self.flow.outputs}

    def chains(self):
        found = (self._chain(step) for step in self.flow.steps if isinstance(step, KernelStep))
        return [chain for chain in found if chain]

    def _chain(self, producer):
        if not self._is_plain_kernel(producer) or not is_elementwise(producer.layer):
            return None
        activation = producer.layer.activation
        norm, homogeneous, signal = None, activation in _HOMOGENEOUS, producer.target
        while (step := self._only_route(signal)) is not None:
            if isinstance(step.layer, keras.layers.BatchNormalization):
                if signal is not producer.target or activation is not keras.activations.linear:
                    return None  # what was merged before it would meet other statistics
                norm = step.layer
            elif step.layer.weights:
                return None
            homogeneous = homogeneous and _is_homogeneous(step.layer)
            signal = step.target
        readers = self._readers.get(id(signal), [])
        if not readers or id(signal) in self._outputs or not all(self._reads(step, signal) for step in readers):
            return None
        channels = self.flow.atoms[id(producer.layer), producer.layout.name]
        positions = [np.argsort(self._numbers(channels, signal), kind="stable").reshape(len(channels), -1)]
        return Chain(producer.layout, norm, tuple(Reader(s.layout, *positions) for s in readers), homogeneous)

    @staticmethod
    def _numbers(channels, signal):
        """The channel of the producer that each channel of a later signal is."""
        order = np.argsort(channels)
        return order[np.searchsorted(channels, signal.atoms, sorter=order)]

    def _only_route(self, signal):
        """The layer that reads a signal, if it is one alone that keeps its channels apart, and all of them."""
        steps = self._readers.get(id(signal), [])
        if len(steps) != 1 or not isinstance(steps[0], RouteStep) or id(signal) in self._outputs:
            return None
        step = steps[0]
        alone = len(step.sources) == 1 and self._calls[id(step.layer)] == 1
        apart = len(step.channels.sources[0]) == 1 and np.isin(step.target.atoms, signal.atoms).all()
        return step if alone and apart else None

    def _is_plain_kernel(self, step):
        layer = step.layer
        plain = type(layer) in _PRODUCERS and getattr(layer, "data_format", None) != "channels_first"
        return plain and step.layout.groups == 1 and self._calls[id(layer)] == 1

    def _reads(self, step, signal):
        return isinstance(step, KernelStep) and self._is_plain_kernel(step) and step.known_input


def _sources(step):
    return [step.source] if isinstance(step, KernelStep) else step.sources


def _is_homogeneous(layer):
    """Whether a positive factor passes through."""
    if isinstance(layer, keras.layers.ReLU):
        return layer.max_value is None and layer.threshold == 0
    if isinstance(layer, keras.layers.ELU | keras.layers.Rescaling):
        return False
    return getattr(layer, "activation", None) in _HOMOGENEOUS
