"""Remove channels from a model for good: what users call."""

import dataclasses
import json
from collections.abc import Mapping

import keras
import numpy as np
from absl import logging

from scc_tf.arguments import received
from scc_tf.graph import Flow, check_functional
from scc_tf.keras_private import all_layers, trained_by
from scc_tf.optimizer_state import carry_optimizer, optimizer_parts
from scc_tf.reports import Report, Table
from scc_tf.surgery.plan import make_plan
from scc_tf.surgery.rebuild import rebuild

__all__ = ["SurgeryReport", "cut_channels", "followed", "remove_channels", "remove_dead_channels"]


@dataclasses.dataclass(frozen=True, repr=False)
class SurgeryReport(Report):
    """What was removed, and what could not be.

    Attributes:
        channels: ``{kernel: (before, after)}``; a kernel is called by its layer's name, or ``"layer/kernel"`` where the
            layer has several.
        parameters: ``(before, after)`` in the whole model, bit depths and exponents included.
        kept_dead: ``{kernel: (channels, reason)}``: channels that were to go and stay, because the outputs would change
            or a layer is not known.
        biases_added: names of layers that got a bias to take constants.
    """

    channels: dict
    parameters: tuple
    kept_dead: dict
    biases_added: tuple

    @property
    def removed(self):
        """Number of channels that are gone."""
        return sum(before - after for before, after in self.channels.values())

    @classmethod
    def from_json(cls, text):
        """The report that `to_json` made a string of."""
        parts = json.loads(text)
        channels, kept_dead = ({k: tuple(v) for k, v in parts[name].items()} for name in ("channels", "kept_dead"))
        return cls(channels, tuple(parts["parameters"]), kept_dead, tuple(parts["biases_added"]))

    def parts(self):
        """One line per kernel, then what could not be removed."""
        rows = [(name, f"{after} of {before} channels") for name, (before, after) in self.channels.items()]
        rows.append(("parameters", "{1:,} of {0:,}".format(*self.parameters)))
        kept = [f"{name}: {count} dead channels stay: {why}" for name, (count, why) in self.kept_dead.items()]
        return [Table("{:<40}{:>24}", rows), *kept, *(f"{name}: got a bias" for name in self.biases_added)]


def remove_channels(model: keras.Model, kept: dict) -> tuple[keras.Model, SurgeryReport]:
    """Rebuild a model without some channels of its kernels; the original is untouched.

    The outputs are those of the model with the kernels of the removed channels set to zero: what such a channel still
    emits (its bias, or the offset of its BatchNormalization, through the activation) is folded into the biases of its
    readers. Where that is not exact, because a constant that is not 0 meets zero padding, the channel stays, and the
    report says so; likewise where a layer is not known, or an addition ties the channel to one that varies. Zero its
    biases first where they shall not count. A reader with a ``bias_exponent`` rounds what is folded into its bias.
    Channels that nothing reads any longer go too.

    Works through Conv1D, Conv2D, DepthwiseConv2D, SeparableConv2D, Conv2DTranspose, Dense, EinsumDense and their
    self-compressing twins; BatchNormalization, elementwise activations, pooling, up-sampling, cropping, zero padding,
    Flatten, Reshape, dropout; Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate; nested models and shared
    layers. No layer loses its last channel.

    Args:
        model: built Sequential or functional model.
        kept: ``{kernel: bool array (C,)}``, True for the channels to keep; missing kernels are kept whole. A kernel
            is called by its layer's name, ``"layer/kernel"`` where a layer has several.

    Returns:
        ``(smaller model, SurgeryReport)``. If the model was compiled, so is the smaller one, with the optimizer's state
        cut along.

    Raises:
        ValueError: if the model is subclassed or not built, a kernel is not known or its name is ambiguous, or a mask
            has the wrong length.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2)])
        >>> smaller, report = remove_channels(model, {"a": [True, False, True]})
        >>> report.channels["a"]
        (3, 2)
    """
    check_functional(model)
    smaller, report, cuts = cut_channels(model, make_plan(model, _masks(model, kept)), zero_stuck=True)
    _carry_training(model, smaller, cuts)
    return smaller, report


def remove_dead_channels(model: keras.Model) -> tuple[keras.Model, SurgeryReport]:
    """Rebuild a model without the channels whose kernels are all zero; the original is untouched.

    For self-compressing layers the quantized kernels count. Inputs whose weights are all zero are not read, so their
    producers go too if nothing else reads them. See `remove_channels` for what can be removed and how.

    Args:
        model: built Sequential or functional model.

    Returns:
        ``(smaller model, SurgeryReport)``; the outputs are the same to rounding.

    Raises:
        ValueError: if the model is subclassed or not built.

    Example:
        >>> import keras, scc_tf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2)])
        >>> compressed = scc_tf.self_compress(model)
        >>> _ = compressed.get_layer("a").bit_depth.assign([4.0, 0.0, 4.0])
        >>> smaller, report = scc_tf.remove_dead_channels(compressed)
        >>> report.removed
        1
    """
    check_functional(model)
    layouts = Flow(model).layouts
    alive = {key: (layout.rows(layout.values()) != 0).any(axis=(1, 2)).ravel() for key, layout in layouts.items()}
    smaller, report, cuts = cut_channels(model, make_plan(model, alive, zeros_read=False))
    _carry_training(model, smaller, cuts)
    return smaller, report


def cut_channels(model, plan, zero_stuck=False):
    """Carry out a plan: ``(smaller model, SurgeryReport, list of Cut)``; the smaller model is not compiled."""
    smaller, cuts, undo = rebuild(model, plan, zero_stuck)
    if (contract := getattr(model, "contract", None)) is not None:  # on the safety set, see `scc_tf.safety.Contract`
        smaller.contract = contract
    if hasattr(smaller, "descend_from"):
        smaller.descend_from(model, {**plan.to_json(), "undo": undo})
    atoms, labels = plan.flow.atoms, plan.flow.labels
    biased = {id(cut.new) for cut in cuts if cut.old is None}
    report = SurgeryReport(
        channels={label: (len(atoms[key]), int(plan.keeps(atoms[key]).sum())) for key, label in labels.items()},
        parameters=(model.count_params(), smaller.count_params()),
        kept_dead=plan.kept_dead,
        biases_added=tuple(layer.name for layer in all_layers(smaller) if id(getattr(layer, "bias", None)) in biased),
    )
    return smaller, report, cuts


def _masks(model, kept):
    """``{(id of layer, kernel name): bool array}`` from what the caller named."""
    if not isinstance(kept, Mapping):
        raise ValueError(f"Expected kept to be a dictionary of bool arrays by kernel. {received('kept', kept)}")
    layouts = Flow(model).layouts
    by_name = {}
    for key, layout in layouts.items():
        by_name.setdefault(layout.label, []).append(key)
    masks = {}
    for name, mask in kept.items():
        found = by_name.get(name, [])
        if len(found) != 1:
            raise ValueError(
                f"Expected kept to name kernels, each of which the model has once, of {sorted(by_name)}. "
                f"Received: {name!r}, which it has {len(found)} times"
            )
        mask, channels = np.asarray(mask), layouts[found[0]].channels
        if mask.shape != (channels,) or mask.dtype != bool:
            raise ValueError(
                f"Expected a bool array of shape ({channels},) for {name!r}. Received: {mask.dtype} {mask.shape}"
            )
        masks[found[0]] = mask
    return masks


def followed(model, other, cuts):
    """The built optimizers of ``model``, and what each is to train of ``other``: ``{attribute: (optimizer, list)}``.

    ``other`` is what it was cut, or grown, to; the list of Cut says which variable follows which.
    """
    old_of = {id(cut.new): id(cut.old) for cut in cuts}
    found = {}
    for name, optimizer in vars(model).items():
        if isinstance(optimizer, keras.optimizers.Optimizer) and optimizer.built:
            known = {id(v) for part in optimizer_parts(optimizer) for v in trained_by(part)[0]}
            if name == "optimizer":
                known.add(id(None))  # biases that were added
            found[name] = optimizer, [v for v in other.trainable_variables if old_of[id(v)] in known]
    return found


def _carry_training(model, smaller, cuts):
    """Compile the smaller model as the other one is, with the optimizers' state."""
    if not model.compiled:
        return
    try:
        if hasattr(smaller, "compile_like"):
            smaller.compile_like(model)
        else:
            smaller.compile_from_config(model.get_compile_config())
    except (TypeError, ValueError) as error:  # a loss or metric that is not registered
        logging.warning("The smaller model is not compiled: %s", error)
        return
    for name, (optimizer, variables) in followed(model, smaller, cuts).items():
        setattr(smaller, name, carry_optimizer(optimizer, variables, cuts))
