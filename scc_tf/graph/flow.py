"""Which channels of a model stand and fall together, and what each layer does to them.

Every channel of every tensor belongs to an *atom*. Atoms that must have the same fate (the addends of a residual
connection, the input and output of a depthwise convolution, the calls of a shared layer) are united. Atom 0 is kept
whatever happens: the model's inputs and outputs, and all that a layer reads which is not known here.
"""

import dataclasses

import keras
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from scc_tf.graph.walk import walk
from scc_tf.layers import KernelLayout, kernels_of
from scc_tf.layers.passing import Channels, channel_axis, is_elementwise, route

__all__ = ["Flow", "KernelStep", "OpaqueStep", "RouteStep", "Signal", "keeps_apart"]


def keeps_apart(layer, layout):
    """Whether the channels of a layer's last kernel are those of its output, bias and activation included."""
    return is_elementwise(layer) and layout.writes_channels()


class Signal:
    """The channels of one tensor in one call.

    Attributes:
        atoms: int array ``(C,)``.
        axis: where the channels stand.
        constant: float64 array ``(C,)``: the value that a channel has at every position of every example; NaN where it
            varies. Set by `scc_tf.surgery.plan`.
        read: bool array ``(C,)``: whether the model's outputs depend on the channel. Likewise.
    """

    def __init__(self, atoms, axis):
        self.atoms, self.axis = np.asarray(atoms), axis
        self.constant = np.full(len(atoms), np.nan)
        self.read = np.zeros(len(atoms), bool)


@dataclasses.dataclass
class KernelStep:
    """One application of a kernel; the last kernel of a layer is followed by its bias and activation."""

    layout: KernelLayout
    source: Signal
    target: Signal
    is_last: bool
    known_input: bool  # whether the source's channels are the kernel's inputs

    @property
    def layer(self):
        """The layer that owns the kernel."""
        return self.layout.layer

    @property
    def key(self):
        """``(id of the layer, kernel name)``."""
        return id(self.layout.layer), self.layout.name

    @property
    def sources(self):
        """The source, in a list as other steps have it."""
        return [self.source]


@dataclasses.dataclass
class RouteStep:
    """One call of a layer that keeps channels apart."""

    layer: keras.Layer
    channels: Channels
    sources: list
    target: Signal


@dataclasses.dataclass
class OpaqueStep:
    """One call of a layer that mixes channels or is not known: it gets what it was built for."""

    layer: object
    sources: list
    targets: list


class Flow:
    """The steps of a model in the order of the forward pass, and the unions of its atoms.

    Args:
        model: built Sequential or functional model.

    Attributes:
        steps: list of `KernelStep`, `RouteStep`, `OpaqueStep`.
        signals: every `Signal`.
        outputs: the signals of the model's outputs.
        atoms: ``{(id of layer, kernel name): int array (C,)}``, kernels in the order of the forward pass.
        layouts: the same keys, `KernelLayout`.
        reasons: ``{atom: reason}`` for those that something keeps; atoms that are tied to them stay as well.
    """

    def __init__(self, model):
        self.steps, self.signals, self.reasons = [], [], {}
        self.atoms, self.layouts = {}, {}
        self._first = {}  # what a layer with channels of its own was first called on
        self._count, self._united = 1, [(np.zeros(1, int),) * 2]
        self.outputs = walk(model, [self._kept(t) for t in model.inputs], self._visit)
        for signal in self.outputs:
            self._keep(signal.atoms, "an output of the model")
        some, others = (np.concatenate(atoms) for atoms in zip(*self._united, strict=True))
        graph = sparse.coo_array((np.ones(len(some)), (some, others)), (self._count, self._count))
        _, firsts, unions = np.unique(connected_components(graph)[1], return_index=True, return_inverse=True)
        self._roots = firsts[unions]  # the smallest atom of each union stands for it

    @property
    def labels(self):
        """``{(id of layer, kernel name): label}``; a number tells kernels of the same label apart."""
        labels, seen = {}, {}
        for key, layout in self.layouts.items():
            seen[layout.label] = number = seen.get(layout.label, 0) + 1
            labels[key] = layout.label if number == 1 else f"{layout.label} ({number})"
        return labels

    def roots(self, atoms=None):
        """The representatives of atoms, in the same shape; by default the set of those of all signals."""
        if atoms is None:
            return set(self._roots[np.concatenate([signal.atoms for signal in self.signals])].tolist())
        return self._roots[atoms]

    def _keep(self, atoms, reason):
        """Never let these atoms go."""
        for atom in atoms:
            self.reasons.setdefault(int(atom), reason)
        self._unite(atoms, np.zeros(len(atoms), int))

    def _unite(self, some, others):
        self._united.append((some, others))

    def _new_atoms(self, count):
        self._count += count
        return np.arange(self._count - count, self._count)

    def _signal(self, atoms, axis):
        self.signals.append(Signal(atoms, axis))
        return self.signals[-1]

    def _kept(self, tensor):
        rank = len(tensor.shape)
        count = tensor.shape[-1] if rank else None
        return self._signal(np.zeros(count or 1, int), max(rank - 1, 0))

    def _visit(self, layer, tensors, inputs, outputs):
        matching = all(
            0 < s.axis < len(t.shape) and t.shape[s.axis] == len(s.atoms) for t, s in zip(tensors, inputs, strict=True)
        )
        kernels = kernels_of(layer)
        if kernels and len(tensors) == 1:
            return [self._visit_kernels(layer, kernels, tensors[0], inputs[0], outputs[0], matching)]
        if matching and len(outputs) == 1 and (found := route(layer, tensors, [s.axis for s in inputs], outputs[0])):
            return [self._visit_route(layer, found, inputs)]
        for signal in inputs:
            self._keep(signal.atoms, f"read by {layer.name} ({type(layer).__name__}), which is not known")
        self._same_as_first(layer, np.zeros(0, int))  # other calls of the layer, if it has channels, keep them too
        step = OpaqueStep(layer, inputs, [self._kept(t) for t in outputs])
        self.steps.append(step)
        return step.targets

    def _visit_route(self, layer, channels, inputs):
        atoms = np.full(channels.sources[0].shape[1], -1)
        for signal, sources in zip(inputs, channels.sources, strict=True):
            for picked in sources:
                found = np.where(picked >= 0, signal.atoms[picked], -1)
                both = (found >= 0) & (atoms >= 0)
                self._unite(atoms[both], found[both])
                atoms = np.where(atoms < 0, found, atoms)
        zeros = atoms < 0
        atoms[zeros] = self._new_atoms(int(zeros.sum()))
        own = layer.weights or isinstance(layer, keras.layers.Reshape) or zeros.any()  # channels in its own state
        self._same_as_first(layer, np.concatenate([inputs[0].atoms, atoms]) if own else np.zeros(0, int))
        step = RouteStep(layer, channels, list(inputs), self._signal(atoms, channels.axis))
        self.steps.append(step)
        return step.target

    def _same_as_first(self, layer, atoms):
        """Unite the channels of a shared layer's calls."""
        first = self._first.setdefault(id(layer), atoms)
        if len(first) != len(atoms):
            self._keep(np.concatenate([first, atoms]), f"{layer.name} is also called on something else")
        elif first is not atoms:
            self._unite(first, atoms)

    def _visit_kernels(self, layer, kernels, tensor, source, output, matching):
        known = matching and kernels[0].reads_channels(len(tensor.shape), source.axis)
        known = known and len(source.atoms) == kernels[0].inputs
        if not known:
            self._keep(source.atoms, f"{layer.name} reads them along another axis")
        self._same_as_first(layer, source.atoms)
        axis = channel_axis(layer, len(output.shape))
        for layout in kernels:
            atoms = self._kernel_atoms(layout, source if known else None)
            is_last = layout is kernels[-1]
            if is_last and not keeps_apart(layer, layout):
                self._keep(atoms, f"the activation or the equation of {layer.name} mixes them")
            self.steps.append(KernelStep(layout, source, self._signal(atoms, axis), is_last, known))
            source, known = self.steps[-1].target, True
        if len(source.atoms) != output.shape[axis]:  # an equation with several channel axes
            self.steps.append(OpaqueStep(layer, [source], [self._kept(output)]))
            return self.steps[-1].targets[0]
        return source

    def _kernel_atoms(self, layout, source):
        key = id(layout.layer), layout.name
        self.layouts[key] = layout
        inputs = None if source is None else source.atoms
        if layout.keeps_inputs_apart:  # an input and its channels are one
            tied = np.zeros(layout.inputs, int) if inputs is None else inputs
            self.atoms[key] = np.repeat(tied, layout.channels // layout.inputs)
            return self.atoms[key]
        if key not in self.atoms:
            self.atoms[key] = self._new_atoms(layout.channels)
        if layout.groups > 1:  # every group keeps as many as the others
            for atoms in [self.atoms[key]] + ([] if inputs is None else [inputs]):
                by_group = atoms.reshape(layout.groups, -1)
                for other in by_group[1:]:
                    self._unite(by_group[0], other)
        return self.atoms[key]
