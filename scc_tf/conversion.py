"""From a plain Keras model to its self-compressing twin, and back."""

import dataclasses

import keras
from absl import logging

from scc_tf.layers import TWINS, SelfCompressing
from scc_tf.training import SelfCompressingModel

__all__ = ["ConversionReport", "self_compress", "to_plain"]

STOCK = {twin: stock for stock, twin in TWINS.items()}


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """What `self_compress` did.

    Attributes:
        converted: names of the layers that now learn their format.
        skipped: ``{layer name: reason}`` for the other layers with weights.
    """

    converted: tuple
    skipped: dict

    def __str__(self):
        """One line for what was converted, one for each skipped layer."""
        lines = [f"{len(self.converted)} layers self-compress: {', '.join(self.converted) or '-'}"]
        return "\n".join(lines + [f"skipped {name}: {reason}" for name, reason in self.skipped.items()])


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a Keras model. Received: {type(model).__name__}")
    if not getattr(model, "inputs", None):
        raise ValueError(
            "Expected a built Sequential or functional model: the graph of a subclassed model is not known, and a "
            "Sequential needs an Input (or a first call). "
            f"Received: {type(model).__name__} {model.name!r}"
        )


def _clone(model, clone_layer):
    """Clone a model layer by layer; returns the clone and the pairs ``(original layer, its clone)``.

    A layer that stands in several places, also on both sides of a nested model's border, is cloned once.
    """
    pairs = {}

    def once(layer):
        if id(layer) not in pairs:
            pairs[id(layer)] = (layer, clone_layer(layer))
        return pairs[id(layer)][1]

    clone = keras.models.clone_model(model, clone_function=once, recursive=True)
    return clone, list(pairs.values())


def _as_self_compressing(model):
    """The same graph of layers as a `SelfCompressingModel`."""
    outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    if not isinstance(model, keras.Sequential):  # keep dictionaries and nests of inputs as they are
        inputs, outputs = model._inputs_struct, model._outputs_struct
    return SelfCompressingModel(inputs=inputs, outputs=outputs, name=model.name)


def _reason_to_skip(layer, keep):
    if keep(layer):
        return "excluded by the caller"
    if isinstance(layer, SelfCompressing):
        return "already self-compressing"
    if type(layer) not in TWINS:
        return f"no self-compressing twin of {type(layer).__name__}"
    if getattr(layer, "quantization_mode", None):
        return f"already quantized ({layer.quantization_mode})"
    if getattr(layer, "lora_enabled", False):
        return "has a LoRA update"
    return None


def self_compress(model, initial_bit_depth=8.0, rounding="nearest", exclude=()):
    """Clone a model with self-compressing layers in place of the stock ones; the original is untouched.

    Weights are copied. Exponents start where ``initial_bit_depth`` bits just span each channel's kernel, so the
    bit depth binds from the first step. The optimizer is not carried over: ``compile`` the new model.

    Args:
        model: built Sequential or functional model; nested models and shared layers are converted too.
        initial_bit_depth: bits per weight to start from, in (0, 24].
        rounding: ``"nearest"`` or ``"floor"``, see `scc_tf.quantization.quantize`.
        exclude: names of layers to leave as they are, or a function ``layer -> bool``.

    Returns:
        A `scc_tf.SelfCompressingModel` whose ``conversion_report`` tells what was converted, and what was
        skipped and why. Skipped layers are logged as well.

    Raises:
        ValueError: if the model is subclassed, not built, or has nothing to convert; if a name in ``exclude``
            is unknown.

    Example:
        >>> import keras, scc_tf
        >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.BatchNormalization()])
        >>> compressed = scc_tf.self_compress(plain)
        >>> compressed.conversion_report.converted
        ('dense',)
    """
    _check_model(model)
    keep = exclude if callable(exclude) else lambda layer: layer.name in exclude
    if not callable(exclude):
        names = {layer.name for layer in model._flatten_layers()}
        if unknown := set(exclude) - names:
            raise ValueError(f"Expected exclude to name layers of the model. Received: {sorted(unknown)}")
    extra = {"initial_bit_depth": initial_bit_depth, "rounding": rounding}

    def clone_layer(layer):
        if _reason_to_skip(layer, keep):
            return layer.__class__.from_config(layer.get_config())
        return TWINS[type(layer)].from_config({**layer.get_config(), **extra})

    clone, pairs = _clone(model, clone_layer)
    for layer, twin in pairs:
        if _reason_to_skip(layer, keep):
            twin.set_weights(layer.get_weights())
            continue
        values = {w.name: w for w in layer.weights}
        for weight in twin.weights:
            if weight.name in values:
                weight.assign(values[weight.name])
        for fmt in twin.formats:
            fmt.exponent.assign(fmt.range_exponents(getattr(twin, fmt.name), initial_bit_depth))
    reasons = {layer.name: _reason_to_skip(layer, keep) for layer, _ in pairs if layer.weights}
    report = ConversionReport(
        converted=tuple(name for name, reason in reasons.items() if reason is None),
        skipped={name: reason for name, reason in reasons.items() if reason is not None},
    )
    if not any(isinstance(twin, SelfCompressing) for _, twin in pairs):
        raise ValueError(f"Expected at least one layer that can self-compress. Received: {model.name!r}: {report}")
    for name, reason in report.skipped.items():
        logging.info("self_compress skipped layer %s: %s", name, reason)
    compressed = _as_self_compressing(clone)
    compressed.conversion_report = report
    return compressed


def to_plain(model):
    """Clone a self-compressing model with stock Keras layers that hold the quantized kernels.

    Args:
        model: Sequential or functional model with self-compressing layers.

    Returns:
        A plain functional model with the same outputs; dead channels are zeros in its kernels.

    Raises:
        ValueError: if the model is subclassed or not built.

    Example:
        >>> import keras, scc_tf
        >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> type(to_plain(scc_tf.self_compress(plain)).layers[-1]) is keras.layers.Dense
        True
    """
    _check_model(model)

    def clone_layer(layer):
        if type(layer) not in STOCK:
            return layer.__class__.from_config(layer.get_config())
        config = layer.get_config()
        del config["initial_bit_depth"], config["rounding"]
        return STOCK[type(layer)].from_config(config)

    functional = model
    if isinstance(model, SelfCompressingModel):  # clone_model keeps the class; the result is to be stock Keras
        functional = keras.Model(model._inputs_struct, model._outputs_struct, name=model.name)
    plain, pairs = _clone(functional, clone_layer)
    for layer, stock in pairs:
        if type(layer) not in STOCK:
            stock.set_weights(layer.get_weights())
            continue
        values = {w.name: w for w in layer.weights}
        for weight in stock.weights:
            in_kernels = weight.name in layer.kernel_names
            weight.assign(layer.quantized(weight.name) if in_kernels else values[weight.name])
    return plain
