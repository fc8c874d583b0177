"""From a plain Keras model to its self-compressing, weight-sharing or masked twin, and back."""

import dataclasses
from collections.abc import Mapping

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
from scc_tf.graph import clone_graph, copy_layer, copy_state, kernels_of
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
from scc_tf.safety.contract import contract_of
from scc_tf.training import SelfCompressingModel
from scc_tf.training.origin import Origin

__all__ = ["ConversionReport", "add_masks", "self_compress", "share_weights", "to_plain"]

EXPONENT_PER = ("channel", "kernel")
ZEROS = ("pruned", "values")


def _stock_of(layer):
    """The stock class that a layer stands in for; its own class if it stands for none."""
    base = UNMASKED.get(type(layer), type(layer))
    return STOCK.get(base, base)


def _stock_config(layer):
    """The configuration of a layer as the stock class takes it."""
    own = ("initial_bit_depth", "rounding", "bias_exponent", "clusters")
    return {k: v for k, v in layer.get_config().items() if k not in own}


def _reason_to_skip(layer, excluded, family, include_frozen):
    """Why a layer is not converted to ``"self-compressing"`` or ``"weight-sharing"``; None if it is."""
    if id(layer) in excluded:
        return "excluded by the caller"
    if isinstance(layer, SelfCompressing) and family == "self-compressing":
        return "already self-compressing"
    if isinstance(layer, WeightSharing):
        return "already weight-sharing"
    if _stock_of(layer) not in TWINS:
        return f"no {family} twin of {type(layer).__name__}"
    return reason_of_kernel(layer, include_frozen)


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


def _copy_by_name(layer, values, other):
    """Give another layer the values that are named, and what is frozen in the first one."""
    flags = {weight.name: weight.trainable for weight in layer.weights}
    for weight in other.weights:
        if weight.name in values:
            weight.assign(values[weight.name])
            weight.trainable = flags.get(weight.name, weight.trainable)


def self_compress(
    model,
    initial_bit_depth=8.0,
    rounding="nearest",
    exclude=(),
    *,
    exponent_per="channel",
    bias_exponent=None,
    include_frozen=False,
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
        include_frozen: whether layers with ``trainable=False`` are converted, too. They answer as before only as
            closely as their codes allow, and no training makes up for that.

    Returns:
        A `scc_tf.SelfCompressingModel` whose ``conversion_report`` tells what was converted, what was skipped and why,
        and what the first rounding costs. Skipped layers are logged as warnings. The model keeps the one that was
        handed in as its ``origin``, to measure safety and fidelity against: leave that one's weights alone meanwhile.

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
    # Keras hides what a layer says while it is being cloned
    check_format(initial_bit_depth, rounding, bias_exponent)
    check_choice("exponent_per", exponent_per, EXPONENT_PER)
    check_convertible(model)
    excluded = chosen_by(exclude, model)
    extra = {"initial_bit_depth": initial_bit_depth, "rounding": rounding, "bias_exponent": bias_exponent}

    def reason_to_skip(layer):
        return _reason_to_skip(layer, excluded, "self-compressing", include_frozen)

    def clone_layer(layer):
        if reason_to_skip(layer):
            return copy_layer(layer)
        twin = twin_of(layer)
        twin = MASKED[twin] if isinstance(layer, Masked) else twin
        return twin.from_config({**layer.get_config(), **extra})

    compressed, pairs = clone_graph(model, clone_layer, SelfCompressingModel)
    for layer, twin in pairs:
        if reason_to_skip(layer):
            copy_state(layer, twin)
            continue
        _copy_by_name(layer, _latent(layer), twin)
        for fmt in twin.formats:
            exponents = fmt.range_exponents(getattr(twin, fmt.name), initial_bit_depth)
            common = keras.ops.full_like(exponents, keras.ops.max(exponents))
            fmt.exponent.assign(common if exponent_per == "kernel" else exponents)
    words = "self_compress", "self-compress"
    report = report_on(model, compressed, pairs, reason_to_skip, SelfCompressing, words)
    errors = dict(error for layer, twin in pairs if not reason_to_skip(layer) for error in _start_errors(twin))
    compressed.conversion_report = dataclasses.replace(report, start_errors=errors)
    compressed.origin = Origin(model)
    return compressed


def _start_errors(layer):
    """Pairs of a kernel's name, and how far quantizing takes it from where it was, relative to its norm."""
    for fmt in layer.formats:
        kernel = keras.ops.convert_to_numpy(getattr(layer, fmt.name)).astype(np.float32)
        off = np.linalg.norm(keras.ops.convert_to_numpy(layer.quantized(fmt.name)) - kernel)
        yield f"{layer.name}/{fmt.name}", float(off / max(np.linalg.norm(kernel), 1e-30))


def _clusters_by_name(clusters, model):
    """``{layer name: number of clusters}`` from what the caller passed."""
    names = [layer.name for layer in model._flatten_layers()]
    counts = clusters if isinstance(clusters, Mapping) else dict.fromkeys(names, clusters)
    counts = {name: check_count("clusters", count) for name, count in counts.items()}
    if unknown := set(counts) - set(names):
        raise ValueError(f"Expected clusters to name layers of the model. {received('clusters', sorted(unknown))}")
    return counts


def _reason_not_to_share(layer, excluded, counts, include_frozen):
    if reason := _reason_to_skip(layer, excluded, "weight-sharing", include_frozen):
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


def share_weights(model, clusters=32, start="linear", seed=0, zeros="pruned", exclude=(), *, include_frozen=False):
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
        check_count("clusters", clusters)
    check_convertible(model)
    counts = _clusters_by_name(clusters, model)
    excluded = chosen_by(exclude, model)

    def reason_to_skip(layer):
        return _reason_not_to_share(layer, excluded, counts, include_frozen)

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
            copy_state(layer, clone)
            continue
        _copy_by_name(layer, _effective(layer), clone)
        for name, (centroids, indices) in codebooks[id(layer)].items():
            clone.share(centroids, indices, name)
    words = "share_weights", "share weights"
    sharing.conversion_report = report_on(model, sharing, pairs, reason_to_skip, WeightSharing, words)
    sharing.contract = contract_of(model)
    return sharing


def to_plain(model):
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

    def clone_layer(layer):
        if _stock_of(layer) is type(layer):
            return copy_layer(layer)
        return _stock_of(layer).from_config(_stock_config(layer))

    plain, pairs = clone_graph(model, clone_layer)
    for layer, stock in pairs:
        if _stock_of(layer) is type(layer):
            copy_state(layer, stock)
            continue
        _copy_by_name(layer, _effective(layer), stock)
    plain.contract = contract_of(model)
    return plain


def _reason_not_to_mask(layer, excluded, include_frozen):
    if id(layer) in excluded:
        return "excluded by the caller"
    if isinstance(layer, Masked):
        return "has masks already"
    if type(layer) not in MASKED:
        return f"no masks for {type(layer).__name__}"
    return reason_of_kernel(layer, include_frozen)


def add_masks(model, exclude=(), *, include_frozen=False):
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

    def reason_to_skip(layer):
        return _reason_not_to_mask(layer, excluded, include_frozen)

    for layer in model._flatten_layers():
        if (update := update_of(layer)) and reason_to_skip(layer) == update:
            raise ValueError(
                f"Expected float kernels without updates to mask. Received: layer {layer.name!r}, {update}; name it in "
                "exclude to leave it as it is"
            )

    def clone_layer(layer):
        return copy_layer(layer) if reason_to_skip(layer) else MASKED[type(layer)].from_config(layer.get_config())

    compresses = isinstance(model, SelfCompressingModel)
    masked, pairs = clone_graph(model, clone_layer, SelfCompressingModel if compresses else keras.Model)
    for layer, clone in pairs:
        if reason_to_skip(layer):
            copy_state(layer, clone)
        else:
            _copy_by_name(layer, _latent(layer), clone)
    words = "add_masks", "have masks"
    masked.conversion_report = report_on(model, masked, pairs, reason_to_skip, Masked, words)
    if compresses:
        masked.starting_weights, masked.origin = model.starting_weights, model.origin
    masked.contract = contract_of(model)
    return masked
