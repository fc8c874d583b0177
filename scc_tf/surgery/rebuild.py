"""Build a model with fewer channels: settings and weights of every layer, cut to what a plan keeps."""

import dataclasses

import keras
import numpy as np

from scc_tf.graph import KernelLayout, clone_graph, copy_layer, copy_seeds, copy_state, padding_place
from scc_tf.layers import SelfCompressing, WeightSharing
from scc_tf.masked_layers import Masked
from scc_tf.surgery.flow import KernelStep, RouteStep
from scc_tf.surgery.plan import bias_of

__all__ = ["Cut", "rebuild"]


@dataclasses.dataclass
class Cut:
    """What was cut from one variable: ``new = old[np.ix_(*indices)]``.

    Attributes:
        old, new: the variables; ``old`` is None for a bias that was added.
        indices: one int array per axis; None where all is kept.
    """

    old: object
    new: object
    indices: tuple | None

    def __call__(self, value):
        """Cut an array of the old variable's shape."""
        value = np.asarray(keras.ops.convert_to_numpy(value))
        return value if self.indices is None else value[np.ix_(*self.indices)]


def rebuild(model, plan, zero_stuck=False):
    """Build the smaller model.

    Args:
        model: the model that ``plan`` was made for, left untouched.
        plan: `scc_tf.surgery.plan.Plan`.
        zero_stuck: whether the kernels of channels that were to go and stay are set to zero.

    Returns:
        ``(smaller model of the same class, list of Cut, one per variable)``.
    """
    surgeons = _surgeons(plan)

    def clone_layer(layer):
        if id(layer) not in surgeons:
            return copy_layer(layer)
        return layer.__class__.from_config(_without_arrays(layer, surgeons[id(layer)].config()))

    smaller, pairs = clone_graph(model, clone_layer, _class_of(model))
    cuts = []
    for layer, clone in pairs:
        if id(layer) in surgeons:
            cuts += surgeons[id(layer)].cuts(clone)
            copy_seeds(layer, clone)
        else:
            copy_state(layer, clone)
            cuts += [Cut(old, new, None) for old, new in zip(layer.weights, clone.weights, strict=True)]
    for cut in cuts:
        cut.new.assign(keras.ops.zeros(cut.new.shape) if cut.old is None else cut(cut.old))
        cut.new.trainable = cut.new.trainable if cut.old is None else cut.old.trainable
    for layer, clone in pairs:
        if zero_stuck and isinstance(surgeons.get(id(layer)), _KernelSurgeon):
            surgeons[id(layer)].zero_stuck(clone)
        if id(layer) in plan.biases:
            clone.bias.assign(bias_of(clone) + np.reshape(surgeons[id(layer)].bias(), clone.bias.shape))
    return smaller, cuts


def _class_of(model):
    return keras.Model if isinstance(model, keras.Sequential) else model.__class__


def _without_arrays(layer, config):
    """The configuration without initial values that are an array: it has the old shape."""
    arrays = [n for n in config if isinstance(getattr(layer, n, None), keras.initializers.Constant)]
    return {**config, **{n: "zeros" for n in arrays if np.ndim(getattr(layer, n).value)}}


def _surgeons(plan):
    surgeons = {}
    for step in plan.flow.steps:
        if isinstance(step, KernelStep):
            surgeons.setdefault(id(step.layer), _KernelSurgeon(step.layer, plan)).add(step)
        elif isinstance(step, RouteStep):
            surgeons[id(step.layer)] = _RouteSurgeon(step, plan)
    return surgeons


class _KernelSurgeon:
    """Cuts a layer with kernels."""

    def __init__(self, layer, plan):
        self.layer, self.plan = layer, plan
        self.steps = {}  # kernel name -> KernelStep; the calls of a shared layer agree

    def add(self, step):
        self.steps.setdefault(step.layout.name, step)

    @property
    def last(self):
        return list(self.steps.values())[-1]

    def inputs(self, step):
        """Which inputs stay, bool ``(I,)``."""
        whole = not step.known_input
        return np.ones(step.layout.inputs, bool) if whole else self.plan.keeps(step.source.atoms)

    def channels(self, step):
        """Which channels stay, bool ``(C,)``."""
        return self.plan.keeps(self.plan.flow.atoms[id(self.layer), step.layout.name])

    def bias(self):
        """What to add to the bias of the channels that stay."""
        return self.plan.biases[id(self.layer)][self.channels(self.last)]

    def config(self):
        config = self.layer.get_config()
        count = int(self.channels(self.last).sum())
        for name in ("filters", "units"):
            if name in config:
                config[name] = count
        if config.get("groups", 1) > 1 and self.last.layout.inputs == self.last.layout.groups:
            config["groups"] = int(self.inputs(self.last).sum())
        for step in self.steps.values():
            if step.layout.is_depthwise and step.layout.inputs == 1:  # its channels go one by one
                config["depth_multiplier"] = int(self.channels(step).sum())
        if isinstance(self.layer, keras.layers.EinsumDense) and self.last.layout.writes_channels():
            config["output_shape"] = (*config["output_shape"][:-1], count)
        if id(self.layer) in self.plan.biases and getattr(self.layer, "bias", None) is None:
            if isinstance(self.layer, keras.layers.EinsumDense):
                config["bias_axes"] = config["equation"][-1]
            else:
                config["use_bias"] = True
        return config

    def cuts(self, clone):
        indices = {}
        for step in self.steps.values():
            indices[step.layout.name] = self._kernel_indices(step)
            if isinstance(self.layer, Masked):
                indices[self.layer.masks[step.layout.name].name] = indices[step.layout.name]
            channels = np.flatnonzero(self.channels(step))
            if isinstance(self.layer, SelfCompressing):
                channel_format = self.layer.format_of(step.layout.name)
                indices[channel_format.bit_depth.name] = indices[channel_format.exponent.name] = (channels,)
            if isinstance(self.layer, WeightSharing):
                indices[self.layer.shared_kernel(step.layout.name).indices.name] = indices[step.layout.name]
            if step is self.last and getattr(self.layer, "bias", None) is not None:
                flat = len(self.layer.bias.shape) == 1 and self.layer.bias.shape[0] == step.layout.channels
                indices["bias"] = (channels,) if flat else None
        new = {w.name: w for w in clone.weights}
        cuts = [Cut(old, new.pop(old.name), indices.get(old.name)) for old in self.layer.weights]
        return cuts + [Cut(None, added, None) for added in new.values()]

    def zero_stuck(self, clone):
        """Set the kernels of the clone's channels that were to go to zero."""
        for step in self.steps.values():
            stuck = self.plan.stuck.get((id(self.layer), step.layout.name))
            if stuck is not None:
                layout = KernelLayout(clone, step.layout.name)
                sharing = isinstance(clone, WeightSharing)
                kernel = clone.shared_kernel(step.layout.name).indices if sharing else getattr(clone, step.layout.name)
                values = np.asarray(keras.ops.convert_to_numpy(kernel))
                kernel.assign(np.where(layout.spread(stuck[self.channels(step)]), 0, values))

    def _kernel_indices(self, step):
        layout = step.layout
        indices = [np.arange(size) for size in layout.shape]
        inputs, channels = self.inputs(step), self.channels(step)
        if layout.is_depthwise:
            indices[layout.input_axis] = np.flatnonzero(inputs)
            if layout.inputs == 1:
                indices[-1] = np.flatnonzero(channels)
            return tuple(indices)
        per_group = layout.inputs // layout.groups
        if layout.input_axis is not None and not layout.groups > per_group == 1:
            indices[layout.input_axis] = np.flatnonzero(inputs[:per_group])
        if len(layout.channel_axes) == 1:
            indices[layout.channel_axes[0]] = np.flatnonzero(channels)
        return tuple(indices)


class _RouteSurgeon:
    """Cuts a layer without kernels that keeps channels apart."""

    def __init__(self, step, plan):
        self.step, self.layer = step, step.layer
        self.source_kept = plan.keeps(step.sources[0].atoms)
        self.target_kept = plan.keeps(step.target.atoms)

    def config(self):
        config = self.layer.get_config()
        if isinstance(self.layer, keras.layers.Reshape):
            shape = list(config["target_shape"])
            if shape[-1] != -1:
                shape[-1] = int(self.target_kept.sum())
            config["target_shape"] = shape
        beside = self.step.channels.sources[0][0] < 0
        if isinstance(self.layer, keras.layers.ZeroPadding1D | keras.layers.ZeroPadding2D) and beside.any():
            config["padding"] = self._padding(beside)
        return config

    def _padding(self, beside):
        sides = np.reshape(self.layer.padding, (-1, 2)).tolist()
        first, last = np.flatnonzero(~beside)[[0, -1]]
        sides[padding_place(self.layer, self.step.channels.axis)] = [
            int((self.target_kept & beside)[:first].sum()),
            int((self.target_kept & beside)[last:].sum()),
        ]
        return sides if len(sides) > 1 else sides[0]

    def cuts(self, clone):
        kept = np.flatnonzero(self.source_kept)
        cuts = []
        for old, new in zip(self.layer.weights, clone.weights, strict=True):
            numbers_channels = len(old.shape) and old.shape[-1] == len(self.source_kept) != 1
            indices = (*(np.arange(size) for size in old.shape[:-1]), kept)
            cuts.append(Cut(old, new, indices if numbers_channels else None))
        return cuts
