"""Decide which channels can go without changing a single output.

A channel can go if it is constant, and what it adds to its readers can be folded into their biases, or if nothing
reads it. Its whole union must be able to go with it.
"""

import dataclasses

import keras
import numpy as np

from scc_tf.graph import Flow, KernelStep, RouteStep
from scc_tf.graph.flow import keeps_apart
from scc_tf.layers import CompressedKernels, entry_of
from scc_tf.layers.passing import evaluate

__all__ = ["Plan", "bias_of", "make_plan"]


@dataclasses.dataclass
class Plan:
    """What stays.

    Attributes:
        flow: the `scc_tf.graph.Flow` of the model.
        removed: set of atoms (representatives) that go.
        biases: ``{id of layer: float64 array (C,)}`` to add to the biases of readers of removed channels.
        stuck: ``{(id of layer, kernel name): bool array (C,)}``: channels that were to go and stay.
        kept_dead: ``{kernel label: (number of them, reason)}``.
    """

    flow: Flow
    removed: set
    biases: dict = dataclasses.field(default_factory=dict)
    stuck: dict = dataclasses.field(default_factory=dict)
    kept_dead: dict = dataclasses.field(default_factory=dict)

    @property
    def share_removed(self):
        """Share of the kernels' weights that go, in [0, 1]."""
        before = after = 0
        for step in self.flow.steps:
            if isinstance(step, KernelStep):
                size, stays = int(np.prod(step.layout.shape)), self.keeps(self.flow.atoms[step.key]).mean()
                if step.known_input and not step.layout.keeps_inputs_apart:
                    stays *= self.keeps(step.source.atoms).mean()
                before, after = before + size, after + size * stays
        return 1 - after / before if before else 0.0

    def to_json(self):
        """What is enough to cut the same architecture again: numbers of atoms and of layers that get a bias."""
        layers = list(dict.fromkeys(key[0] for key in self.flow.layouts))
        return {"removed": sorted(map(int, self.removed)), "biased": [layers.index(i) for i in self.biases]}

    @classmethod
    def from_json(cls, flow, cut):
        """The plan that `to_json` told of, for a model of the same architecture; biases are left at zero.

        Raises:
            ValueError: if it does not fit the architecture.
        """
        layers = {key[0]: layout for key, layout in flow.layouts.items()}
        if not set(cut["removed"]) <= flow.roots() - {0} or not all(0 <= i < len(layers) for i in cut["biased"]):
            raise ValueError(f"Expected a cut of this architecture. Received: {cut}")
        ids = list(layers)
        return cls(flow, set(cut["removed"]), {ids[i]: np.zeros(layers[ids[i]].channels) for i in cut["biased"]})

    def keeps(self, atoms):
        """Bool array: which of these atoms stay."""
        return ~np.isin(self.flow.roots(atoms), list(self.removed))


def make_plan(model, kept, zeros_read=True, training=False):
    """Decide which channels of a model go: a `Plan`.

    Args:
        model: built Sequential or functional model.
        kept: ``{(id of layer, kernel name): bool array (C,)}``; missing kernels are kept whole. The kernels of the
            other channels count as zero.
        zeros_read: whether an input counts as read where all its weights happen to be zero.
        training: whether a constant channel leaves a BatchNormalization as in training, where its mean is its value.
    """
    flow = Flow(model)
    masks = {key: kept.get(key, np.ones(layout.channels, bool)) for key, layout in flow.layouts.items()}
    readings = {key: _Reading(layout, masks[key], zeros_read) for key, layout in flow.layouts.items()}
    for step in flow.steps:
        _propagate_constants(step, readings, training)
    for signal in flow.outputs:
        signal.read[:] = True
    for step in reversed(flow.steps):
        _propagate_reads(step, readings)
    blocked = _blocked(flow, readings)
    plan = Plan(flow, flow.roots() - set(blocked))
    plan.biases = _biases(plan, readings)
    for key, label in flow.labels.items():
        stuck = ~masks[key] & plan.keeps(flow.atoms[key])
        if stuck.any():
            first = int(flow.atoms[key][np.argmax(stuck)])
            reason = flow.reasons.get(first, blocked[int(flow.roots(first))])
            plan.stuck[key], plan.kept_dead[label] = stuck, (int(stuck.sum()), reason)
    return plan


class _Reading:
    """How a kernel reads its inputs: its weights, summed over positions, and which inputs it reads; see `make_plan`."""

    def __init__(self, layout, kept, zeros_read):
        rows = layout.rows(layout.values()).astype(np.float64)  # (G, I/G, A, C/G)
        self._by_group = (layout.groups, -1, 1)
        kept = kept.reshape(layout.groups, 1, -1)
        reads = np.broadcast_to(kept, (rows.shape[0], rows.shape[1], rows.shape[3]))
        self._reads = reads if zeros_read else reads & (rows != 0).any(axis=2)
        self._weights = np.where(kept, rows.sum(axis=2), 0)

    def sums(self, values):
        """What inputs of these values add to each channel, ``(C,)``; 0 * inf is 0."""
        values, products = values.reshape(self._by_group), np.zeros_like(self._weights)
        return np.multiply(values, self._weights, out=products, where=values != 0).sum(axis=1).ravel()

    def constants(self, source, exact):
        """What each channel is before the bias, ``(C,)``; NaN where it varies."""
        constant = source.reshape(self._by_group)
        varies = np.isnan(constant) | ((constant != 0) & (not exact))
        return np.where((varies & self._reads).any(axis=1).ravel(), np.nan, self.sums(np.nan_to_num(source)))

    def read_inputs(self, target_read):
        """Which inputs matter, bool ``(I,)``, when these channels do."""
        return (self._reads & target_read.reshape(self._by_group).swapaxes(1, 2)).any(axis=2).ravel()


def _propagate_constants(step, readings, training):
    if isinstance(step, KernelStep):
        source = step.source.constant if step.known_input else np.full(step.layout.inputs, np.nan)
        constant = readings[step.key].constants(source, step.layout.exact)
        if step.is_last:
            constant = _with_bias(step.layer, constant) if keeps_apart(step.layer, step.layout) else np.nan
        step.target.constant[:] = constant
    elif isinstance(step, RouteStep):
        step.target.constant[:] = _route_constants(step, training)


def bias_of(layer):
    """The bias that a layer adds, rounded where it rounds it; None if it has none."""
    return layer.quantized_bias() if isinstance(layer, CompressedKernels) else getattr(layer, "bias", None)


def _with_bias(layer, constant):
    bias = bias_of(layer)
    if bias is not None:
        bias = np.asarray(keras.ops.convert_to_numpy(bias), np.float64)
        if bias.size != constant.size:
            return np.full(constant.size, np.nan)
        constant = constant + bias.ravel()
    return constant if layer.activation is None else evaluate(layer.activation, constant, layer.variable_dtype)


def _route_constants(step, training):
    values, made_from = [], []
    for signal, sources in zip(step.sources, step.channels.sources, strict=True):
        for picked in sources:
            made_from.append(picked >= 0)
            values.append(np.where(picked >= 0, signal.constant[picked], np.nan))
    entry = entry_of(step.layer)
    if entry.merge:
        return entry.merge(np.array(values))
    low = np.where(made_from, values, np.inf).min(axis=0)  # NaN wins in min and max
    high = np.where(made_from, values, -np.inf).max(axis=0)
    constant = np.where(np.any(made_from, axis=0), np.where(low == high, low, np.nan), 0)
    if step.channels.padded:
        return np.where(constant == 0, 0, np.nan)
    return entry.constant(step.layer, constant, training)


def _propagate_reads(step, readings):
    if isinstance(step, KernelStep):
        read = readings[step.key].read_inputs(step.target.read)
        step.source.read[:] |= read if step.known_input else True
    elif isinstance(step, RouteStep):
        _propagate_route_reads(step)
    else:
        for signal in step.sources:
            signal.read[:] = True


def _propagate_route_reads(step):
    ignored = np.zeros((len(step.sources), len(step.target.read)), bool)
    if type(step.layer) is keras.layers.Multiply:  # x * 0: x does not matter, as long as the 0 stays
        zero = np.array([signal.constant == 0 for signal in step.sources])
        first_zero = zero & (np.cumsum(zero, axis=0) == 1)
        ignored = zero.any(axis=0) & ~first_zero
    for signal, sources, ignore in zip(step.sources, step.channels.sources, ignored, strict=True):
        for picked in sources:
            signal.read[picked[step.target.read & ~ignore & (picked >= 0)]] = True


def _blocked(flow, readings):
    """``{representative of atoms that must stay: reason}``."""
    blocked, first = {0: "tied to channels that are needed"}, {}

    def block(atoms, reason):
        for root in np.unique(flow.roots(atoms)):
            blocked.setdefault(int(root), reason)

    kernel_steps = [step for step in flow.steps if isinstance(step, KernelStep) and step.known_input]
    for step in kernel_steps:
        for wrong, reason in _not_foldable(step, readings):
            block(step.source.atoms[wrong], reason)
    for step in kernel_steps:  # a shared layer has one bias, for a constant that is the same in all its calls
        other = first.setdefault(step.key, step)
        equal = np.isclose(step.source.constant, other.source.constant, rtol=0, atol=0, equal_nan=True)
        block(step.source.atoms[~equal], f"not the same constant in all calls of {step.layer.name}")
    for signal in flow.signals:
        block(signal.atoms[np.isnan(signal.constant) & signal.read], "tied to channels that vary")
    for key, atoms in flow.atoms.items():
        roots = flow.roots(atoms)
        if not any(root in blocked for root in roots):
            blocked[int(roots[0])] = f"the last channel of {flow.layouts[key].label}"
    return blocked


def _not_foldable(step, readings):
    """Pairs ``(bool array over the inputs, reason)`` of the inputs that a kernel cannot do without."""
    if not step.is_last or step.layout.keeps_inputs_apart:
        return  # what a depthwise kernel makes of a constant goes with it
    matters = readings[step.key].read_inputs(step.target.read)
    constant = matters & ~np.isnan(step.source.constant) & (step.source.constant != 0)
    if not step.layout.exact:
        yield constant, f"a constant that is not 0 meets the zero padding of {step.layer.name}"
    bias = getattr(step.layer, "bias", None)
    if bias is not None and int(np.prod(bias.shape)) != step.layout.channels:
        yield constant, f"the bias of {step.layer.name} cannot take its constant"
    if bias is None and not step.layout.writes_channels():
        yield constant, f"{step.layer.name} has no bias to take its constant"


def _biases(plan, readings):
    biases = {}
    for step in plan.flow.steps:
        if isinstance(step, KernelStep) and step.is_last and step.known_input:
            constants = np.where(plan.keeps(step.source.atoms), 0, np.nan_to_num(step.source.constant))
            folded = np.where(plan.keeps(step.target.atoms), readings[step.key].sums(constants), 0)
            if folded.any():
                biases[id(step.layer)] = folded
    return biases
