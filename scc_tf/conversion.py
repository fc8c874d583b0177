"""From a plain Keras model to its self-compressing, weight-sharing or masked twin, and back."""

import dataclasses

import keras
import numpy as np
from absl import logging

from scc_tf import coding
from scc_tf.graph import check_functional, clone_graph, copy_layer, copy_weights, kernels_of
from scc_tf.layers import (
    STOCK,
    TWINS,
    WEIGHT_SHARING,
    EffectiveKernels,
    SelfCompressing,
    WeightSharing,
    check_format,
    kernel_constraints,
)
from scc_tf.masked_layers import MASKED, UNMASKED, Masked, twin_of
from scc_tf.training import SelfCompressingModel
from scc_tf.training.origin import Origin

__all__ = ["ConversionReport", "add_masks", "self_compress", "share_weights", "to_plain"]

EXPONENT_PER = ("channel", "kernel")
ZEROS = ("pruned", "values")


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """What `self_compress` or `share_weights` did.

    Attributes:
        converted: names of the layers that now learn their format or share their weights.
        skipped: ``{layer name: reason}`` for the other layers that own a weight of rank 2 or more. Layers without
            one, such as BatchNormalization, have nothing to compress.
        verb: what the converted layers now do.
    """

    converted: tuple
    skipped: dict
    verb: str = "self-compress"

    def __str__(self):
        """One line for what was converted, one for each skipped layer."""
        lines = [f"{len(self.converted)} layers {self.verb}: {', '.join(self.converted) or '-'}"]
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


def _stock_of(layer):
    """The stock class that a layer stands in for; its own class if it stands for none."""
    base = UNMASKED.get(type(layer), type(layer))
    return STOCK.get(base, base)


def _stock_config(layer):
    """The configuration of a layer as the stock class takes it."""
    own = ("initial_bit_depth", "rounding", "bias_exponent", "clusters")
    return {k: v for k, v in layer.get_config().items() if k not in own}


def _reason_to_skip(layer, excluded, family):
    """Why a layer is not converted to ``"self-compressing"`` or ``"weight-sharing"``; None if it is."""
    if id(layer) in excluded:
        return "excluded by the caller"
    if isinstance(layer, SelfCompressing) and family == "self-compressing":
        return "already self-compressing"
    if isinstance(layer, WeightSharing):
        return "already weight-sharing"
    if _stock_of(layer) not in TWINS:
        return f"no {family} twin of {type(layer).__name__}"
    if getattr(layer, "quantization_mode", None):
        return f"already quantized ({layer.quantization_mode})"
    if getattr(layer, "lora_enabled", False):
        return "has a LoRA update"
    return None


def _latent(layer):
    """The weights of a layer by name."""
    return {w.name: w for w in layer.weights}


def _effective(layer):
    """The weights of a layer by name, kernels and bias as it uses them."""
    values = _latent(layer)
    if isinstance(layer, EffectiveKernels):
        values |= {name: layer.effective(name) for name in layer.kernel_names}
        values["bias"] = layer.effective_bias()
    return values


def _copy_by_name(values, other):
    """Give another layer the weights that are named."""
    for weight in other.weights:
        if weight.name in values:
            weight.assign(values[weight.name])


def _report(model, pairs, reason_to_skip, family, function, verb):
    """The `ConversionReport` of ``pairs`` of a layer and its clone, logged; refused without a clone of the family."""
    layers = [layer for layer, _ in pairs if any(len(w.shape) >= 2 for w in layer.weights)]
    reasons = [(layer.name, reason_to_skip(layer)) for layer in layers]
    report = ConversionReport(
        converted=tuple(name for name, reason in reasons if reason is None),
        skipped={name: reason for name, reason in reasons if reason is not None},
        verb=verb,
    )
    if not any(isinstance(clone, family) for _, clone in pairs):
        raise ValueError(f"Expected at least one layer that can {verb}. Received: {model.name!r}: {report}")
    for name, reason in report.skipped.items():
        logging.warning("%s skipped layer %s: %s", function, name, reason)
    return report


def self_compress(
    model, initial_bit_depth=8.0, rounding="nearest", exclude=(), *, exponent_per="channel", bias_exponent=None
):
    """Clone a model with self-compressing layers in place of the stock ones; the original is untouched.

    Weights are copied. Exponents start where ``initial_bit_depth`` bits just span each channel's kernel, so the
    bit depth binds from the first step. The optimizer is not carried over: ``compile`` the new model.

    Args:
        model: built Sequential or functional model; nested models and shared layers are converted too.
        initial_bit_depth: bits per weight to start from, in (0, 24].
        rounding: ``"nearest"`` or ``"floor"``, see `scc_tf.quantization.quantize`.
        exclude: names of layers to leave as they are, or a function ``layer -> bool``. A nested model stands for
            all its layers.
        exponent_per: ``"channel"`` or ``"kernel"``: whether exponents start where they suit their channel, or all
            channels of a kernel have the same. With ``size_model="entropy"`` they stay the same then, and a file has
            one for the kernel.
        bias_exponent: int; biases are rounded to multiples of ``2**bias_exponent``. None leaves them as they are.

    Returns:
        A `scc_tf.SelfCompressingModel` whose ``conversion_report`` tells what was converted, and what was
        skipped and why. Skipped layers are logged as warnings.

    Raises:
        ValueError: if the model is subclassed, not built, or has no layer that can self-compress; if a name in
            ``exclude`` is unknown; if one of the other arguments is out of range.

    Example:
        >>> import keras, scc_tf
        >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.BatchNormalization()])
        >>> compressed = scc_tf.self_compress(plain)
        >>> compressed.conversion_report.converted
        ('dense',)
    """
    check_functional(model)
    # Keras hides what a layer says while it is being cloned
    check_format(initial_bit_depth, rounding, bias_exponent)
    if exponent_per not in EXPONENT_PER:
        raise ValueError(f"Expected exponent_per to be one of {EXPONENT_PER}. Received: exponent_per={exponent_per!r}")
    excluded = _chosen_by(exclude, model)
    extra = {"initial_bit_depth": initial_bit_depth, "rounding": rounding, "bias_exponent": bias_exponent}

    def reason_to_skip(layer):
        return _reason_to_skip(layer, excluded, "self-compressing")

    def clone_layer(layer):
        if reason_to_skip(layer):
            return copy_layer(layer)
        twin = twin_of(layer)
        twin = MASKED[twin] if isinstance(layer, Masked) else twin
        return twin.from_config({**layer.get_config(), **extra})

    compressed, pairs = clone_graph(model, clone_layer, SelfCompressingModel)
    for layer, twin in pairs:
        if reason_to_skip(layer):
            copy_weights(layer, twin)
            continue
        _copy_by_name(_latent(layer), twin)
        for fmt in twin.formats:
            exponents = fmt.range_exponents(getattr(twin, fmt.name), initial_bit_depth)
            common = keras.ops.full_like(exponents, keras.ops.max(exponents))
            fmt.exponent.assign(common if exponent_per == "kernel" else exponents)
    words = "self_compress", "self-compress"
    compressed.conversion_report = _report(model, pairs, reason_to_skip, SelfCompressing, *words)
    compressed.origin = Origin(model)
    return compressed


def _clusters_by_name(clusters, model):
    """``{layer name: number of clusters}`` from what the caller passed."""
    names = [layer.name for layer in model._flatten_layers()]
    counts = clusters if isinstance(clusters, dict) else dict.fromkeys(names, clusters)
    if not all(isinstance(count, int) and count >= 1 for count in counts.values()):
        raise ValueError(f"Expected clusters from 1, as an int or by the layer's name. Received: clusters={clusters!r}")
    if unknown := set(counts) - set(names):
        raise ValueError(f"Expected clusters to name layers of the model. Received: {sorted(unknown)}")
    return counts


def _reason_not_to_share(layer, excluded, counts):
    if reason := _reason_to_skip(layer, excluded, "weight-sharing"):
        return reason
    if layer.name not in counts:
        return "not named in clusters"
    constraints = kernel_constraints(layer)
    return f"has a {constraints[0]}, which shared weights cannot obey" if constraints else None


def _codebook(kernel, zeros, **settings):
    """Centroids ``(k,)`` and the indices of a `scc_tf.layers.SharedKernel` for an array of weights."""
    shared = kernel != 0 if zeros == "pruned" else np.ones(kernel.shape, bool)
    indices = np.zeros(kernel.shape, np.int32)
    if not shared.any():
        return np.zeros(1, np.float32), indices
    centroids, members = coding.share_weights(kernel[shared], **settings)
    indices[shared] = members + 1
    return centroids, indices


def share_weights(model, clusters=32, start="linear", seed=0, zeros="pruned", exclude=()):
    """Clone a model with weight-sharing layers in place of the stock ones; the original is untouched.

    The weights of each kernel are grouped by `scc_tf.coding.share_weights`, and ``fit`` then trains the centroids. A
    masked or self-compressing layer is taken with the kernel that it multiplies by and the bias that it adds. The
    optimizer is not carried over: ``compile`` the new model.

    Args:
        model: built Sequential or functional model; nested models and shared layers are converted too.
        clusters: centroids per kernel, int from 1; or ``{layer name: int}``, and layers that it does not name stay as
            they are. A kernel with fewer different weights gets fewer centroids.
        start: first centroids, ``"linear"``, ``"density"`` or ``"forgy"``.
        seed: of the draw of ``"forgy"``.
        zeros: ``"pruned"``: weights that are exactly 0 stay 0 for ever and take no centroid, so a kernel of zeros
            only can never learn; ``"values"``: they are weights like others.
        exclude: as in `self_compress`.

    Returns:
        A functional `keras.Model` whose ``conversion_report`` tells what was converted, and what was skipped and why.
        Skipped layers are logged as warnings: among them those whose kernel has a constraint, which shared weights
        cannot obey.

    Raises:
        ValueError: if the model is subclassed, not built, or has no layer whose weights can be shared; if a name in
            ``exclude`` or ``clusters`` is unknown; if ``clusters``, ``start`` or ``zeros`` is none of the above; if a
            kernel is not finite.

    Source: Han, Mao & Dally 2016, "Deep Compression", section 3 (arXiv 1510.00149).

    Example:
        >>> import keras, numpy as np, scc_tf
        >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
        >>> shared = scc_tf.share_weights(plain, clusters=4)
        >>> np.unique(shared.get_layer("head").kernel).size
        4
    """
    check_functional(model)
    counts = _clusters_by_name(clusters, model)
    if zeros not in ZEROS:
        raise ValueError(f"Expected zeros to be one of {ZEROS}. Received: zeros={zeros!r}")
    excluded = _chosen_by(exclude, model)

    def reason_to_skip(layer):
        return _reason_not_to_share(layer, excluded, counts)

    def codebooks_of(layer):
        settings = {"zeros": zeros, "clusters": counts[layer.name], "start": start, "seed": seed}
        return {kernel.name: _codebook(kernel.values(), **settings) for kernel in kernels_of(layer)}

    # before the cloning, during which Keras hides what is raised
    layers = {id(layer): layer for layer in model._flatten_layers() if not reason_to_skip(layer)}
    codebooks = {key: codebooks_of(layer) for key, layer in layers.items()}

    def clone_layer(layer):
        if id(layer) not in codebooks:
            return copy_layer(layer)
        found = [len(centroids) for centroids, _ in codebooks[id(layer)].values()]
        return WEIGHT_SHARING[_stock_of(layer)].from_config({**_stock_config(layer), "clusters": found})

    sharing, pairs = clone_graph(model, clone_layer)
    for layer, clone in pairs:
        if id(layer) not in codebooks:
            copy_weights(layer, clone)
            continue
        _copy_by_name(_effective(layer), clone)
        for name, (centroids, indices) in codebooks[id(layer)].items():
            clone.share(centroids, indices, name)
    sharing.conversion_report = _report(model, pairs, reason_to_skip, WeightSharing, "share_weights", "share weights")
    return sharing


def to_plain(model):
    """Clone a model with stock Keras layers in place of self-compressing, weight-sharing and masked ones.

    Their kernels are what the layers multiply by: quantized, shared, pruned; their biases are what the layers add.

    Args:
        model: Sequential or functional model.

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

    def clone_layer(layer):
        if _stock_of(layer) is type(layer):
            return copy_layer(layer)
        return _stock_of(layer).from_config(_stock_config(layer))

    plain, pairs = clone_graph(model, clone_layer)
    for layer, stock in pairs:
        if _stock_of(layer) is type(layer):
            copy_weights(layer, stock)
            continue
        _copy_by_name(_effective(layer), stock)
    return plain


def add_masks(model, exclude=()):
    """Clone a model with a mask for every kernel, stock or self-compressing; the original is untouched.

    Weights are copied, the masks keep everything at first. `scc_tf.callbacks.MagnitudePruning` sets them during
    ``fit``, ``layer.prune(keep)`` by hand; `to_plain` takes them off again. Weight-sharing layers stay as they are:
    their pruned weights have an index of their own. The optimizer is not carried over: ``compile`` the new model.

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
        _copy_by_name(_latent(layer), clone)
    if not any(isinstance(clone, Masked) for _, clone in pairs):
        raise ValueError(f"Expected at least one layer whose kernel can have a mask. Received: {model.name!r}")
    if compresses:
        masked.starting_weights = model.starting_weights
    return masked
