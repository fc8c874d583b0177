"""Build a model with fewer channels, or with those that it had before: settings and weights of every layer."""

import dataclasses
import itertools

import keras
import numpy as np

from scc_tf.graph import Flow, KernelStep, RouteStep, clone_graph, copy_layer, copy_running_state, copy_state
from scc_tf.layers import Masked, SelfCompressing, WeightSharing, layout_of
from scc_tf.layers.passing import padding_place
from scc_tf.surgery.plan import Plan, bias_of

__all__ = ["Cut", "rebuild", "regrow"]


@dataclasses.dataclass
class Cut:
    """What was cut from one variable: ``new = old[np.ix_(*indices)]``; grown back, ``new[np.ix_(*indices)] = old``.

    Attributes:
        old, new: the variables; ``old`` is None for a bias that was added.
        indices: one int array per axis of the larger of both; None where they have the same shape.
        grown: whether ``new`` is the larger one.
    """

    old: object
    new: object
    indices: tuple | None
    grown: bool = False

    @property
    def places(self):
        """Int array in the shape of ``new``: where in ``old``, flattened, it comes from, -1: from nowhere; or None."""
        if self.indices is None:
            return None
        of_old = np.arange(np.prod(self.old.shape, dtype=int)).reshape(self.old.shape)
        return self._taken(of_old, np.full(self.new.shape, -1))

    def carry(self):
        """Give ``new`` the values of ``old``; what comes from nowhere stays, and is zero in a bias that was added."""
        if self.old is None:
            self.new.assign(keras.ops.zeros(self.new.shape))
            return
        self.new.assign(self._taken(*(keras.ops.convert_to_numpy(v) for v in (self.old, self.new))))
        self.new.trainable = self.old.trainable

    def _taken(self, old, new):
        """What becomes of an array in the shape of ``old``; where it says nothing, that is ``new``."""
        if self.indices is None:
            return old
        if not self.grown:
            return old[np.ix_(*self.indices)]
        new = np.array(new)
        new[np.ix_(*self.indices)] = old
        return new


def rebuild(model, plan, zero_stuck=False):
    """Build the smaller model: ``(model of the same class, list of Cut, one per variable, undo)``.

    The model that ``plan`` was made for is left untouched; ``undo`` is what `regrow` needs. With ``zero_stuck`` the
    kernels of channels that were to go and stay are set to zero.
    """
    surgeons = _surgeons(plan)
    undo = []

    def changes_of(layer):
        undo.append({})
        if id(layer) not in surgeons:
            return None
        config = layer.get_config()
        changes = surgeons[id(layer)].changes(config)
        undo[-1] = {name: config[name] for name in changes}
        return changes

    def cuts_of(layer, clone):
        return surgeons[id(layer)].cuts(clone) if id(layer) in surgeons else None

    smaller, pairs, cuts = _rebuilt(model, changes_of, cuts_of)
    for layer, clone in pairs:
        if zero_stuck and isinstance(surgeons.get(id(layer)), _KernelSurgeon):
            surgeons[id(layer)].zero_stuck(clone)
        if id(layer) in plan.biases:
            clone.bias.assign(bias_of(clone) + np.reshape(surgeons[id(layer)].bias(), clone.bias.shape))
    return smaller, cuts, {str(i): changes for i, changes in enumerate(undo) if changes}


def regrow(model, cut):
    """Build the model as it was before a cut: ``(larger model of the same class, list of Cut)``.

    ``cut`` is what `scc_tf.surgery.plan.Plan.to_json` told of it, with the ``"undo"`` of `rebuild`; a ValueError is
    raised if it was one of another architecture. What the model had then and has not now is as in a new layer; biases
    that the cut has added are gone.
    """
    places, surgeons = itertools.count(), {}

    def cuts_of(layer, clone):
        if id(clone) not in surgeons:
            return None
        shrinking = surgeons[id(clone)].cuts(layer)
        return [Cut(c.new, c.old, c.indices, grown=True) for c in shrinking if c.old is not None]

    def learn(larger):
        surgeons.update(_surgeons(Plan.from_json(Flow(larger), cut)))

    larger, _, cuts = _rebuilt(model, lambda layer: cut["undo"].get(str(next(places))), cuts_of, learn)
    return larger, cuts


def _rebuilt(model, changes_of, cuts_of, learn=lambda clone: None):
    """Clone a model: ``(clone, pairs, cuts)``, weights and states carried over.

    ``changes_of(layer)`` gives the settings that change, for each layer in order, None to copy it; ``learn`` is told of
    the clone before ``cuts_of(layer, its clone)`` gives a list of Cut, None where nothing changes.
    """

    def clone_layer(layer):
        changes = changes_of(layer)
        if changes is None:
            return copy_layer(layer)
        return layer.__class__.from_config({**_without_arrays(layer), **changes})

    clone, pairs = clone_graph(model, clone_layer, _class_of(model))
    learn(clone)
    cuts = []
    for layer, new in pairs:
        found = cuts_of(layer, new)
        if found is None:
            copy_state(layer, new)
            found = [Cut(old, copy, None) for old, copy in zip(layer.weights, new.weights, strict=True)]
        else:
            copy_running_state(layer, new)
        cuts += found
        for old, copy in zip(layer.metrics_variables, new.metrics_variables, strict=False):  # some are made when called
            if copy.shape == old.shape:
                copy.assign(old)
    for one in cuts:
        one.carry()
    return clone, pairs, cuts


def _class_of(model):
    return keras.Model if isinstance(model, keras.Sequential) else model.__class__


def _without_arrays(layer):
    """The configuration without initial values that are an array: it has the old shape."""
    config = layer.get_config()
    arrays = [n for n in config if isinstance(getattr(layer, n, None), keras.initializers.Constant)]
    return {**config, **{n: "zeros" for n in arrays if np.ndim(getattr(layer, n).value)}}


def _surgeons(plan):
    surgeons = {}
    for step in plan.flow.steps:
        if isinstance(step, KernelStep):  # the calls of a shared layer agree
            surgeons.setdefault(id(step.layer), _KernelSurgeon(step.layer, plan)).steps.setdefault(step.key[1], step)
        elif isinstance(step, RouteStep):
            surgeons[id(step.layer)] = _RouteSurgeon(step, plan)
    return surgeons


class _KernelSurgeon:
    """Cuts a layer with kernels."""

    def __init__(self, layer, plan):
        self.layer, self.plan = layer, plan
        self.steps = {}  # kernel name -> KernelStep

    @property
    def last(self):
        return list(self.steps.values())[-1]

    def inputs(self, step):
        """Which inputs stay, bool ``(I,)``."""
        whole = not step.known_input
        return np.ones(step.layout.inputs, bool) if whole else self.plan.keeps(step.source.atoms)

    def channels(self, step):
        """Which channels stay, bool ``(C,)``."""
        return self.plan.keeps(self.plan.flow.atoms[step.key])

    def bias(self):
        """What is added to the bias of the channels that stay."""
        return self.plan.biases[id(self.layer)][self.channels(self.last)]

    def changes(self, config):
        """The settings that change, of the layer's own."""
        count = int(self.channels(self.last).sum())
        changes = {name: count for name in ("filters", "units") if name in config}
        if config.get("groups", 1) > 1 and self.last.layout.keeps_inputs_apart:
            changes["groups"] = int(self.inputs(self.last).sum())
        for step in self.steps.values():
            if step.layout.is_depthwise and step.layout.inputs == 1:  # its channels go one by one
                changes["depth_multiplier"] = int(self.channels(step).sum())
        if isinstance(self.layer, keras.layers.EinsumDense) and self.last.layout.writes_channels():
            changes["output_shape"] = (*config["output_shape"][:-1], count)
        if id(self.layer) in self.plan.biases and getattr(self.layer, "bias", None) is None:
            is_einsum = isinstance(self.layer, keras.layers.EinsumDense)
            changes |= {"bias_axes": config["equation"][-1]} if is_einsum else {"use_bias": True}
        return changes

    def cuts(self, clone):
        """One `Cut` for each variable."""
        indices = {}
        for step in self.steps.values():
            name, of_kernel = step.layout.name, self._kernel_indices(step)
            channels = (np.flatnonzero(self.channels(step)),)
            indices[name] = of_kernel
            if isinstance(self.layer, Masked):
                indices[self.layer.masks[name].name] = of_kernel
            if isinstance(self.layer, WeightSharing):
                indices[self.layer.shared_kernel(name).indices.name] = of_kernel
            if isinstance(self.layer, SelfCompressing):
                fmt = self.layer.format_of(name)
                indices[fmt.bit_depth.name] = indices[fmt.exponent.name] = channels
            if step is self.last and getattr(self.layer, "bias", None) is not None:
                indices["bias"] = channels if self.layer.bias.shape == (step.layout.channels,) else None
        new = {w.name: w for w in clone.weights}
        cuts = [Cut(old, new.pop(old.name), indices.get(old.name)) for old in self.layer.weights]
        return cuts + [Cut(None, added, None) for added in new.values()]

    def zero_stuck(self, clone):
        """Set the kernels of the clone's channels that were to go to zero."""
        for step in self.steps.values():
            if (stuck := self.plan.stuck.get(step.key)) is not None:
                layout = layout_of(clone, step.layout.name)
                sharing = isinstance(clone, WeightSharing)
                kernel = clone.shared_kernel(layout.name).indices if sharing else getattr(clone, layout.name)
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
        if layout.input_axis is not None and not layout.keeps_inputs_apart:
            indices[layout.input_axis] = np.flatnonzero(inputs[: layout.inputs // layout.groups])
        if len(layout.channel_axes) == 1:
            indices[layout.channel_axes[0]] = np.flatnonzero(channels)
        return tuple(indices)


class _RouteSurgeon:
    """Cuts a layer without kernels that keeps channels apart."""

    def __init__(self, step, plan):
        self.step, self.layer = step, step.layer
        self.source_kept = plan.keeps(step.sources[0].atoms)
        self.target_kept = plan.keeps(step.target.atoms)

    def changes(self, config):
        """The settings that change, of the layer's own."""
        if isinstance(self.layer, keras.layers.Reshape) and config["target_shape"][-1] != -1:
            return {"target_shape": [*config["target_shape"][:-1], int(self.target_kept.sum())]}
        beside = self.step.channels.sources[0][0] < 0
        if isinstance(self.layer, keras.layers.ZeroPadding1D | keras.layers.ZeroPadding2D) and beside.any():
            sides = np.reshape(self.layer.padding, (-1, 2)).tolist()
            first, last = np.flatnonzero(~beside)[[0, -1]]
            left = self.target_kept & beside
            sides[padding_place(self.layer, self.step.channels.axis)] = [
                int(left[:first].sum()),
                int(left[last:].sum()),
            ]
            return {"padding": sides if len(sides) > 1 else sides[0]}
        return {}

    def cuts(self, clone):
        """One `Cut` for each variable."""
        kept, cuts = np.flatnonzero(self.source_kept), []
        for old, new in zip(self.layer.weights, clone.weights, strict=True):
            numbers_channels = len(old.shape) and old.shape[-1] == len(self.source_kept) != 1
            indices = (*(np.arange(size) for size in old.shape[:-1]), kept)
            cuts.append(Cut(old, new, indices if numbers_channels else None))
        return cuts
