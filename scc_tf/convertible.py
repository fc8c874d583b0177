"""Which models and layers can be converted, and what a conversion tells of those that it leaves as they are."""

import dataclasses
from collections.abc import Iterable

import keras
import numpy as np
from absl import logging

from scc_tf.allowed import ARRAYS, check_layer
from scc_tf.arguments import received
from scc_tf.graph import check_functional, is_graph, shared_levels
from scc_tf.keras_private import all_layers, own_variables
from scc_tf.layers import is_frozen
from scc_tf.reports import Report

__all__ = [
    "ConversionReport",
    "check_class",
    "check_convertible",
    "chosen_by",
    "reason_of_kernel",
    "report_on",
    "update_of",
]

_FROZEN = "frozen (trainable=False); include_frozen=True takes it too"
_LAMBDA = "it is Python code; a layer class that is registered with keras.saving can be stored"
_OF_THE_GRAPH = {"build", "build_from_config", "from_config", "get_build_config", "get_config", "summary"}
_KNOWN = ("keras", "scc_tf", "tensorflow", "builtins")


@dataclasses.dataclass(frozen=True, repr=False)
class ConversionReport(Report):
    """What `self_compress`, `share_weights` or `add_masks` did.

    Attributes:
        converted: names of the layers that now learn their format, share their weights or have masks.
        skipped: ``{layer name: reason}`` for the other layers that own a weight of rank 2 or more. Layers without
            one, such as BatchNormalization, have nothing to compress.
        verb: what the converted layers now do.
        not_storable: ``{name: reason}`` for layers and operations that no packed file can hold: `scc_tf.save_packed`
            will refuse the model.
        not_exportable: ``{name: reason}`` for inputs and layers that no ``.tflite`` can be made of:
            `scc_tf.export_tflite` will refuse the model.
        start_errors: ``{layer name/kernel: fraction}``, what the first rounding costs: the distance of the quantized
            kernel from the one that was copied, relative to the latter (norms). What it costs on the safety set is the
            first check of `scc_tf.callbacks.SafetyMonitor`.
    """

    converted: tuple
    skipped: dict
    verb: str = "self-compress"
    not_storable: dict = dataclasses.field(default_factory=dict)
    not_exportable: dict = dataclasses.field(default_factory=dict)
    start_errors: dict = dataclasses.field(default_factory=dict)

    def parts(self):
        """One line for what was converted, one for each skipped layer, one for what the first rounding costs."""
        lines = [f"{len(self.converted)} layers {self.verb}: {', '.join(self.converted) or '-'}"]
        for what, found in self._remarks():
            lines += [f"{what} {name}: {reason}" for name, reason in found.items()]
        if self.start_errors:
            worst, error = max(self.start_errors.items(), key=lambda item: item[1])
            least = 100 * min(self.start_errors.values())
            lines.append(f"kernels start {least:.1f} to {100 * error:.1f} % off the original, the most in {worst}")
        return lines

    def _remarks(self):
        yield "skipped layer", self.skipped
        yield "no packed file can hold", self.not_storable
        yield "no .tflite can be made of", self.not_exportable


def check_class(model):
    """Raise a ValueError for a model whose graph is not known, or whose class overrides what Keras does with it."""
    check_functional(model)
    if own := _overridden(model):
        raise ValueError(
            f"Expected a model whose class adds nothing to its graph of layers: what it overrides would be lost. "
            f"Received: {model.name!r} of class {type(model).__name__}, which overrides {', '.join(own)}; to go "
            "without, convert keras.Model(model.inputs, model.outputs)"
        )


def check_convertible(model):
    """`check_class`, and a ValueError that names the layer for weights that are NaN or infinite."""
    check_class(model)
    for layer in all_layers(model):
        for variable in own_variables(layer):
            _check_numbers(layer, variable)


def _overridden(model):
    """Names of what the class of a model, or the model itself, does in another way than Keras."""
    own = [cls for cls in type(model).__mro__ if cls.__module__.partition(".")[0] not in _KNOWN]
    names = {name for cls in own for name in vars(cls)}
    names |= {name for name, value in vars(model).items() if callable(value) and name.endswith(("_step", "call"))}
    names |= {"compute_loss", "compute_metrics"} & vars(model).keys()
    return sorted(n for n in names - _OF_THE_GRAPH if hasattr(keras.Model, n) and (n[:2] != "__" or n == "__call__"))


def _check_numbers(layer, variable):
    if not keras.backend.is_float_dtype(variable.dtype):
        return
    values = keras.ops.convert_to_numpy(variable).astype(np.float32)
    of_a_user = not variable.trainable and type(layer).__module__.partition(".")[0] not in _KNOWN
    wrong = np.isnan(values) if of_a_user else ~np.isfinite(values)  # a table may hold infinities
    if wrong.any():
        raise ValueError(
            f"Expected weights that are finite numbers. Received: {variable.name} of layer {layer.name!r} with "
            f"{int(wrong.sum())} of {values.size} values NaN or infinite"
        )


def chosen_by(exclude, model):
    """The ids of the layers to leave as they are, by names or a function; a nested model stands for all in it."""
    layers = all_layers(model)
    if callable(exclude):
        chosen = [layer for layer in layers if exclude(layer)]
    else:
        names = {exclude} if isinstance(exclude, str) else set(exclude) if isinstance(exclude, Iterable) else {None}
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"Expected exclude to be names of layers or a function. {received('exclude', exclude)}")
        chosen = [layer for layer in layers if layer.name in names]
        if unknown := names - {layer.name for layer in chosen}:
            raise ValueError(f"Expected exclude to name layers of the model. Received: exclude={sorted(unknown)}")
    return {id(inner) for layer in chosen for inner in all_layers(layer)}


def update_of(layer):
    """What makes the kernel of a layer another thing than a float variable; None if nothing does."""
    if mode := getattr(layer, "quantization_mode", None):
        return f"already quantized ({mode})"
    return "has a LoRA update" if getattr(layer, "lora_enabled", False) else None


def reason_of_kernel(layer, include_frozen):
    """Why the kernel of a layer of a known class stays as it is; None if it need not."""
    return update_of(layer) or (_FROZEN if is_frozen(layer) and not include_frozen else None)


def _not_storable(model):
    """Why a packed file cannot hold some layers and operations of a model, by name."""
    found = {name: f"shared by {', '.join(owners)}" for name, owners in shared_levels(model).items()}
    for operation in (each for graph in all_layers(model) if is_graph(graph) for each in graph.operations):
        if not is_graph(operation):
            try:
                check_layer(_without_arrays(keras.saving.serialize_keras_object(operation)))
            except (ValueError, NotImplementedError) as error:
                found[operation.name] = _LAMBDA if type(operation) is keras.layers.Lambda else _one_line(error)
    return found


def _one_line(error):
    return " ".join(str(error).split())[:300]


def _not_exportable(model):
    """Why `scc_tf.export_tflite` will refuse a model, by the names of inputs and layers."""
    found = {t.name: f"its size is open: {tuple(t.shape)}" for t in model.inputs if None in t.shape[1:]}
    found |= {t.name: "it takes texts" for t in model.inputs if t.dtype == "string"}
    stateful = (layer for layer in all_layers(model) if getattr(layer, "stateful", False))
    return found | {layer.name: "it has a state between calls" for layer in stateful}


def _without_arrays(value):
    if isinstance(value, dict):
        return None if value.get("class_name") in ARRAYS else {k: _without_arrays(v) for k, v in value.items()}
    return [_without_arrays(item) for item in value] if isinstance(value, list | tuple) else value


def report_on(model, clone, pairs, reason_to_skip, family, words):
    """The `ConversionReport` of a conversion; all but what was converted is logged as warnings.

    ``pairs`` are layers and their clones, ``reason_to_skip`` a function ``layer -> str or None``; ``words`` the name of
    the conversion and what the clones do. A ValueError is raised if no layer of the clone is of ``family``.
    """
    function, verb = words
    layers = [layer for layer, _ in pairs if any(len(w.shape) >= 2 for w in layer.weights)]
    reasons = [(layer.name, reason_to_skip(layer)) for layer in layers]
    report = ConversionReport(
        converted=tuple(name for name, reason in reasons if reason is None),
        skipped={name: reason for name, reason in reasons if reason is not None},
        verb=verb,
        not_storable=_not_storable(clone),
        not_exportable=_not_exportable(clone),
    )
    if not any(isinstance(layer, family) for layer in all_layers(clone)):
        why = "; ".join(f"{name}: {reason}" for name, reason in report.skipped.items()) or "no layer with a kernel"
        raise ValueError(f"Expected at least one layer that can {verb}. Received: {model.name!r}: {why}")
    for what, found in report._remarks():
        for name, reason in found.items():
            logging.warning("%s: %s %s: %s", function, what, name, reason)
    return report
