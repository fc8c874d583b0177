"""From a plain Keras model to its self-compressing or masked twin, and back."""

import dataclasses

import keras
from absl import logging

from scc_tf.graph import check_functional, clone_graph, copy_layer, copy_weights
from scc_tf.layers import TWINS, SelfCompressing, check_format
from scc_tf.masked_layers import MASKED, UNMASKED, Masked, twin_of
from scc_tf.training import SelfCompressingModel

__all__ = ["ConversionReport", "add_masks", "self_compress", "to_plain"]

STOCK = {twin: stock for stock, twin in TWINS.items()}


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """What `self_compress` did.

    Attributes:
        converted: names of the layers that now learn their format.
        skipped: ``{layer name: reason}`` for the other layers that own a weight of rank 2 or more. Layers without
            one, such as BatchNormalization, have nothing to compress.
    """

    converted: tuple
    skipped: dict

    def __str__(self):
        """One line for what was converted, one for each skipped layer."""
        lines = [f"{len(self.converted)} layers self-compress: {', '.join(self.converted) or '-'}"]
        return "\n".join(lines + [f"skipped {name}: {reason}" for name, reason in self.skipped.items()])


def _chosen_by(exclude, model):
    """The ids of the layers to leave as they are; a nested model stands for everything in it."""
    layers = model._flatten_layers()
    if callable(exclude):
        chosen = [layer for layer in layers if exclude(layer)]
    else:
        names = {exclude} if isinstance(exclude, str) else set(exclude)
        chosen = [layer for layer in layers if layer.name in names]
        if unknown := names - {layer.name for layer in chosen}:
            raise ValueError(f"Expected exclude to name layers of the model. Received: {sorted(unknown)}")
    return {id(inner) for layer in chosen for inner in layer._flatten_layers()}


def _reason_to_skip(layer, excluded):
    if id(layer) in excluded:
        return "excluded by the caller"
    if isinstance(layer, SelfCompressing):
        return "already self-compressing"
    if UNMASKED.get(type(layer), type(layer)) not in TWINS:
        return f"no self-compressing twin of {type(layer).__name__}"
    if getattr(layer, "quantization_mode", None):
        return f"already quantized ({layer.quantization_mode})"
    if getattr(layer, "lora_enabled", False):
        return "has a LoRA update"
    return None


def _copy_by_name(layer, other):
    """Give another layer the weights that both have."""
    values = {w.name: w for w in layer.weights}
    for weight in other.weights:
        if weight.name in values:
            weight.assign(values[weight.name])


def self_compress(model, initial_bit_depth=8.0, rounding="nearest", exclude=()):
    """Clone a model with self-compressing layers in place of the stock ones; the original is untouched.

    Weights are copied. Exponents start where ``initial_bit_depth`` bits just span each channel's kernel, so the
    bit depth binds from the first step. The optimizer is not carried over: ``compile`` the new model.

    Args:
        model: built Sequential or functional model; nested models and shared layers are converted too.
        initial_bit_depth: bits per weight to start from, in (0, 24].
        rounding: ``"nearest"`` or ``"floor"``, see `scc_tf.quantization.quantize`.
        exclude: names of layers to leave as they are, or a function ``layer -> bool``. A nested model stands for
            all its layers.

    Returns:
        A `scc_tf.SelfCompressingModel` whose ``conversion_report`` tells what was converted, and what was
        skipped and why. Skipped layers are logged as warnings.

    Raises:
        ValueError: if the model is subclassed, not built, or has no layer that can self-compress; if a name in
            ``exclude`` is unknown; if ``initial_bit_depth`` or ``rounding`` is out of range.

    Example:
        >>> import keras, scc_tf
        >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.BatchNormalization()])
        >>> compressed = scc_tf.self_compress(plain)
        >>> compressed.conversion_report.converted
        ('dense',)
    """
    check_functional(model)
    check_format(initial_bit_depth, rounding)  # Keras hides what a layer says while it is being cloned
    excluded = _chosen_by(exclude, model)
    extra = {"initial_bit_depth": initial_bit_depth, "rounding": rounding}

    def clone_layer(layer):
        if _reason_to_skip(layer, excluded):
            return copy_layer(layer)
        twin = twin_of(layer)
        twin = MASKED[twin] if isinstance(layer, Masked) else twin
        return twin.from_config({**layer.get_config(), **extra})

    compressed, pairs = clone_graph(model, clone_layer, SelfCompressingModel)
    for layer, twin in pairs:
        if _reason_to_skip(layer, excluded):
            copy_weights(layer, twin)
            continue
        _copy_by_name(layer, twin)
        for fmt in twin.formats:
            fmt.exponent.assign(fmt.range_exponents(getattr(twin, fmt.name), initial_bit_depth))
    reasons = [
        (layer.name, _reason_to_skip(layer, excluded))
        for layer, _ in pairs
        if any(len(w.shape) >= 2 for w in layer.weights)
    ]
    report = ConversionReport(
        converted=tuple(name for name, reason in reasons if reason is None),
        skipped={name: reason for name, reason in reasons if reason is not None},
    )
    if not any(isinstance(twin, SelfCompressing) for _, twin in pairs):
        raise ValueError(f"Expected at least one layer that can self-compress. Received: {model.name!r}: {report}")
    for name, reason in report.skipped.items():
        logging.warning("self_compress skipped layer %s: %s", name, reason)
    compressed.conversion_report = report
    return compressed


def to_plain(model):
    """Clone a self-compressing or masked model with stock Keras layers that hold the quantized and pruned kernels.

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

    def stock_of(layer):
        base = UNMASKED.get(type(layer), type(layer))
        return STOCK.get(base, base)

    def clone_layer(layer):
        if stock_of(layer) is type(layer):
            return copy_layer(layer)
        config = layer.get_config()
        for learned in ("initial_bit_depth", "rounding"):
            config.pop(learned, None)
        return stock_of(layer).from_config(config)

    plain, pairs = clone_graph(model, clone_layer)
    for layer, stock in pairs:
        if stock_of(layer) is type(layer):
            copy_weights(layer, stock)
            continue
        values = {w.name: w for w in layer.weights}
        for weight in stock.weights:
            quantized = isinstance(layer, SelfCompressing) and weight.name in layer.kernel_names
            weight.assign(layer.quantized(weight.name) if quantized else values[weight.name])
    return plain


def add_masks(model, exclude=()):
    """Clone a model with a mask for every kernel, stock or self-compressing; the original is untouched.

    Weights are copied, the masks keep everything at first. `scc_tf.callbacks.MagnitudePruning` sets them during
    ``fit``, ``layer.prune(keep)`` by hand; `to_plain` takes them off again. The optimizer is not carried over:
    ``compile`` the new model.

    Args:
        model: built Sequential or functional model; nested models and shared layers are converted too.
        exclude: as in `self_compress`.

    Returns:
        A functional model with the same outputs; a `scc_tf.SelfCompressingModel` if ``model`` is one.

    Raises:
        ValueError: if the model is subclassed, not built, or has no kernel to mask; if a name in ``exclude`` is
            unknown.

    Example:
        >>> import keras, numpy as np, scc_tf
        >>> model = scc_tf.add_masks(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="head")]))
        >>> model.get_layer("head").prune(np.eye(2, dtype=bool))
        >>> bool(model.get_layer("head").kernel[0, 1] == 0)
        True
    """
    check_functional(model)
    excluded = _chosen_by(exclude, model)

    def clone_layer(layer):
        if type(layer) not in MASKED or id(layer) in excluded:
            return copy_layer(layer)
        return MASKED[type(layer)].from_config(layer.get_config())

    compresses = isinstance(model, SelfCompressingModel)
    masked, pairs = clone_graph(model, clone_layer, SelfCompressingModel if compresses else keras.Model)
    for layer, clone in pairs:
        if type(clone) is type(layer):
            copy_weights(layer, clone)
            continue
        _copy_by_name(layer, clone)
    if not any(isinstance(clone, Masked) for _, clone in pairs):
        raise ValueError(f"Expected at least one layer whose kernel can have a mask. Received: {model.name!r}")
    if compresses:
        masked.starting_weights = model.starting_weights
    return masked
