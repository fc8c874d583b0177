"""From a plain Keras model to its self-compressing, weight-sharing or masked form, and back."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from scc_tf import coding
from scc_tf.arguments import check_choice, check_count, received
from scc_tf.coding.codebook import STARTS
from scc_tf.convertible import (
    ConversionReport,
    check_class,
    check_convertible,
    chosen_by,
    reason_of_kernel,
    report_on,
    update_of,
)
from scc_tf.graph import clone_graph, copy_layer, copy_state
from scc_tf.keras_private import all_layers
from scc_tf.layers import (
    CompressedKernels,
    Masked,
    SelfCompressing,
    WeightSharing,
    check_format,
    entry_of,
    kernel_constraints,
    kernels_of,
)
from scc_tf.safety.contract import contract_of
from scc_tf.training import SelfCompressingModel
from scc_tf.training.reference import Reference

__all__ = ["ConversionReport", "add_masks", "self_compress", "share_weights", "to_plain"]

EXPONENT_PER = ("channel", "kernel")
ZEROS = ("pruned", "values")
MOST_CLUSTERS = 2**16  # wider indices would save nothing
_OWN_SETTINGS = ("initial_bit_depth", "rounding", "bias_exponent", "clusters")


def _is_compressed(layer):
    return isinstance(layer, CompressedKernels | Masked)


def _stock_config(layer):
    return {name: value for name, value in layer.get_config().items() if name not in _OWN_SETTINGS}


def _reason_to_skip(layer, excluded, include_frozen, form):
    """Why a layer does not get a form of its registry entry, such as ``"self_compressing"``; None if it does."""
    entry = entry_of(layer)
    if id(layer) in excluded:
        return "excluded by the caller"
    if isinstance(layer, SelfCompressing) and form == "self_compressing":
        return "already self-compressing"
    if isinstance(layer, WeightSharing):
        return "already weight-sharing"
    if isinstance(layer, Masked) and form == "masked":
        return "has masks already"
    if entry is None or not entry.kernels:
        return f"no {form.replace('_', '-')} form of {type(layer).__name__}"
    return reason_of_kernel(layer, include_frozen)


def _values(layer, latent=False):
    """The weights of a layer by name; kernels and bias as it computes with them, unless the latent ones are wanted."""
    values = {weight.name: weight for weight in layer.weights}
    if isinstance(layer, CompressedKernels) and not latent:
        values |= {name: layer.quantized(name) for name in layer.kernel_names}
        values["bias"] = layer.quantized_bias()
    return values


def _clone(model, converted, make, latent=False, model_class=keras.Model):
    """``(clone, pairs of a layer and its clone)``; layers are made anew where ``converted(layer)``, or copied."""
    clone, pairs = clone_graph(model, lambda la: make(la) if converted(la) else copy_layer(la), model_class)
    for layer, new in pairs:
        if not converted(layer):
            copy_state(layer, new)
            continue
        values, flags = _values(layer, latent), {weight.name: weight.trainable for weight in layer.weights}
        for weight in new.weights:
            if weight.name in values:
                weight.assign(values[weight.name])
                weight.trainable = flags.get(weight.name, weight.trainable)
    clone.contract = contract_of(model)
    return clone, pairs


def self_compress(
    model: keras.Model,
    initial_bit_depth: float = 8.0,
    rounding: str = "nearest",
    exclude: Iterable[str] | Callable = (),
    *,
    exponent_per: str = "channel",
    bias_exponent: int | None = None,
    include_frozen: bool = False,
) -> SelfCompressingModel:
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
        include_frozen: whether layers with ``trainable=False`` are converted, too. They answer as before only as
            closely as their codes allow, and no training makes up for that.

    Returns:
        A `scc_tf.SelfCompressingModel` whose ``conversion_report`` tells what was converted, what was skipped and why,
        and what the first rounding costs. Skipped layers are logged as warnings. The model keeps the one that was
        handed in as its ``reference``, to measure safety and fidelity against: leave its weights alone meanwhile.

    Raises:
        ValueError: if the model is subclassed, not built, or has no layer that can self-compress; if its class
            overrides ``train_step`` or other methods, which would be lost; if a weight is not finite; if a name in
            ``exclude`` is unknown; if one of the other arguments is out of range.

    Example:
        >>> import keras, scc_tf
        >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.BatchNormalization()])
        >>> compressed = scc_tf.self_compress(plain)
        >>> compressed.conversion_report.converted
        ('dense',)
    """
    check_format(initial_bit_depth, rounding, bias_exponent)
    check_choice("exponent_per", exponent_per, EXPONENT_PER)
    check_convertible(model)
    excluded = chosen_by(exclude, model)
    settings = {"initial_bit_depth": initial_bit_depth, "rounding": rounding, "bias_exponent": bias_exponent}

    def reason(layer):
        return _reason_to_skip(layer, excluded, include_frozen, "self_compressing")

    def make(layer):
        entry = entry_of(layer)
        cls = entry.masked_self_compressing if isinstance(layer, Masked) else entry.self_compressing
        return cls.from_config({**layer.get_config(), **settings})

    compressed, pairs = _clone(model, lambda la: not reason(la), make, latent=True, model_class=SelfCompressingModel)
    compressed.contract = None  # its first fit makes one
    formats = [fmt for layer, new in pairs if not reason(layer) for fmt in new.formats]
    for fmt in formats:
        exponents = fmt.range_exponents(fmt.kernel, initial_bit_depth)
        common = keras.ops.full_like(exponents, keras.ops.max(exponents))
        fmt.exponent.assign(common if exponent_per == "kernel" else exponents)
    report = report_on(model, compressed, pairs, reason, SelfCompressing, ("self_compress", "self-compress"))
    errors = {f"{fmt.layer.name}/{fmt.name}": _start_error(fmt) for fmt in formats}
    compressed.conversion_report = dataclasses.replace(report, start_errors=errors)
    compressed.reference = Reference(model)
    return compressed


def _start_error(fmt):
    """How far quantizing takes a kernel from where it was, relative to its norm."""
    kernel = keras.ops.convert_to_numpy(fmt.kernel).astype(np.float32)
    return float(np.linalg.norm(fmt.values() - kernel) / max(np.linalg.norm(kernel), 1e-30))


def _clusters_by_name(clusters, model):
    """``{layer name: number of clusters}`` from what the caller passed."""
    names = [layer.name for layer in all_layers(model)]
    counts = clusters if isinstance(clusters, Mapping) else dict.fromkeys(names, clusters)
    counts = {name: check_count("clusters", count, most=MOST_CLUSTERS) for name, count in counts.items()}
    if unknown := set(counts) - set(names):
        raise ValueError(f"Expected clusters to name layers of the model. {received('clusters', sorted(unknown))}")
    return counts


def _codebook(kernel, zeros, **settings):
    """Centroids ``(k,)`` and the indices of a `scc_tf.layers.SharedKernel` for an array of weights."""
    shared = kernel != 0 if zeros == "pruned" else np.ones(kernel.shape, bool)
    indices = np.zeros(kernel.shape, np.int32)
    if not shared.any():
        return np.zeros(1, np.float32), indices
    centroids, members = coding.share_weights(kernel[shared], **settings)
    indices[shared] = members + 1
    return centroids, indices


def share_weights(
    model: keras.Model,
    clusters: Any = 32,
    start: str = "linear",
    seed: int = 0,
    zeros: str = "pruned",
    exclude: Iterable[str] | Callable = (),
    *,
    include_frozen: bool = False,
) -> keras.Model:
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
        include_frozen: as in `self_compress`.

    Returns:
        A functional `keras.Model` whose ``conversion_report`` tells what was converted, and what was skipped and why.
        Skipped layers are logged as warnings: among them those whose kernel has a constraint, which shared weights
        cannot obey.

    Raises:
        ValueError: if the model is subclassed, not built, or has no layer whose weights can be shared; if a name in
            ``exclude`` or ``clusters`` is unknown; if ``clusters``, ``start`` or ``zeros`` is none of the above; if
            the class of the model overrides methods or a weight is not finite, as in `self_compress`.

    Source: Han, Mao & Dally 2016, "Deep Compression", section 3 (arXiv 1510.00149).

    Example:
        >>> import keras, numpy as np, scc_tf
        >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
        >>> shared = scc_tf.share_weights(plain, clusters=4)
        >>> np.unique(shared.get_layer("head").kernel).size
        4
    """
    check_choice("start", start, STARTS)
    check_count("seed", seed, least=0)
    check_choice("zeros", zeros, ZEROS)
    if not isinstance(clusters, Mapping):
        check_count("clusters", clusters, most=MOST_CLUSTERS)
    check_convertible(model)
    counts = _clusters_by_name(clusters, model)
    excluded = chosen_by(exclude, model)

    def reason(layer):
        if why := _reason_to_skip(layer, excluded, include_frozen, "weight_sharing"):
            return why
        if layer.name not in counts:
            return "not named in clusters"
        constraints = kernel_constraints(layer)
        return f"has a {constraints[0]}, which shared weights cannot obey" if constraints else None

    def codebooks_of(layer):
        settings = {"zeros": zeros, "clusters": counts[layer.name], "start": start, "seed": seed}
        return {kernel.name: _codebook(kernel.values(), **settings) for kernel in kernels_of(layer)}

    # before the cloning, during which Keras hides what is raised
    codebooks = {id(layer): codebooks_of(layer) for layer in all_layers(model) if not reason(layer)}

    def make(layer):
        found = [len(centroids) for centroids, _ in codebooks[id(layer)].values()]
        return entry_of(layer).weight_sharing.from_config({**_stock_config(layer), "clusters": found})

    sharing, pairs = _clone(model, lambda layer: id(layer) in codebooks, make)
    for layer, new in pairs:
        for name, (centroids, indices) in codebooks.get(id(layer), {}).items():
            new.share(centroids, indices, name)
    sharing.conversion_report = report_on(
        model, sharing, pairs, reason, WeightSharing, ("share_weights", "share weights")
    )
    return sharing


def to_plain(model: keras.Model) -> keras.Model:
    """Clone a model with stock Keras layers in place of self-compressing, weight-sharing and masked ones.

    Their kernels are what the layers multiply by: quantized, shared, pruned; their biases are what the layers add.

    Args:
        model: Sequential or functional model.

    Returns:
        A plain functional model with the same outputs; dead channels are zeros in its kernels.

    Raises:
        ValueError: if the model is subclassed or not built, or its class overrides methods, as in `self_compress`.

    Example:
        >>> import keras, scc_tf
        >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> type(to_plain(scc_tf.self_compress(plain)).layers[-1]) is keras.layers.Dense
        True
    """
    check_class(model)
    return _clone(model, _is_compressed, lambda layer: entry_of(layer).stock.from_config(_stock_config(layer)))[0]


def add_masks(
    model: keras.Model, exclude: Iterable[str] | Callable = (), *, include_frozen: bool = False
) -> keras.Model:
    """Clone a model with a mask for every kernel, stock or self-compressing; the original is untouched.

    Weights are copied, the masks keep everything at first. `scc_tf.callbacks.MagnitudePruning` sets them during
    ``fit``, ``layer.prune(keep)`` by hand; `to_plain` takes them off again. Weight-sharing layers stay as they are:
    their pruned weights have an index of their own. The optimizer is not carried over: ``compile`` the new model.

    Args:
        model: built Sequential or functional model; nested models and shared layers are converted too.
        exclude: as in `self_compress`.
        include_frozen: whether layers with ``trainable=False`` get masks, too.

    Returns:
        A functional model with the same outputs; a `scc_tf.SelfCompressingModel` if ``model`` is one. Its
        ``conversion_report`` tells which layers have masks.

    Raises:
        ValueError: if the model is subclassed, not built, or has no kernel to mask; if a layer is quantized or has a
            LoRA update, and is not excluded; if a name in ``exclude`` is unknown; if the class of the model overrides
            methods or a weight is not finite, as in `self_compress`.

    Example:
        >>> import keras, numpy as np, scc_tf
        >>> model = scc_tf.add_masks(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="head")]))
        >>> model.get_layer("head").prune(np.eye(2, dtype=bool))
        >>> bool(model.get_layer("head").kernel[0, 1] == 0)
        True
    """
    check_convertible(model)
    excluded = chosen_by(exclude, model)

    def reason(layer):
        return _reason_to_skip(layer, excluded, include_frozen, "masked")

    def make(layer):
        entry = entry_of(layer)
        cls = entry.masked_self_compressing if isinstance(layer, SelfCompressing) else entry.masked
        return cls.from_config(layer.get_config())

    for layer in all_layers(model):
        if (update := update_of(layer)) and reason(layer) == update:
            raise ValueError(
                f"Expected float kernels without updates to mask. Received: layer {layer.name!r}, {update}; name it in "
                "exclude to leave it as it is"
            )
    compresses = isinstance(model, SelfCompressingModel)
    model_class = SelfCompressingModel if compresses else keras.Model
    masked, pairs = _clone(model, lambda la: not reason(la), make, latent=True, model_class=model_class)
    masked.conversion_report = report_on(model, masked, pairs, reason, Masked, ("add_masks", "have masks"))
    if compresses:
        masked.starting_weights, masked.reference = model.starting_weights, model.reference
    return masked
