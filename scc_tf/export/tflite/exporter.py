"""The exporter: a self-compressed Keras model as a ``.tflite`` file with exactly the learned integers."""

import keras

from scc_tf.arguments import check_choice, check_count, check_path
from scc_tf.atomic import atomic_path
from scc_tf.export.tflite.answers import check_answers
from scc_tf.export.tflite.conversion import check_convertible, float_bytes, input_names
from scc_tf.export.tflite.flatbuffer import make_names_unique, pack, read, strip
from scc_tf.export.tflite.matching import find_filters, kernels_of, match_filters
from scc_tf.export.tflite.readback import verify
from scc_tf.export.tflite.report import StoredKernel, TFLiteReport
from scc_tf.export.tflite.samples import representative_samples
from scc_tf.export.tflite.scales import find_output_scales, move_scales
from scc_tf.export.tflite.speed import fill_lanes, replace_unit_pools
from scc_tf.export.tflite.static import check_installed, quantize_activations
from scc_tf.export.tflite.storage import RAW_OPS, STORAGES, decide, write
from scc_tf.export.tflite.versions import set_versions
from scc_tf.inference import check_weights
from scc_tf.keras_private import all_layers, own_trainable_variables
from scc_tf.layers import entries, entry_of

__all__ = ["export_tflite"]

COMPUTES = tuple(RAW_OPS)


def export_tflite(model, path, compute="float", storage="int8", representative_data=None, lanes=None):
    """Write a model as a TFLite file that holds exactly the integers that it learned.

    A kernel ``w[c] = k[c] * q[c]`` is stored as the integers ``q`` with one scale ``k`` per channel and zero point 0,
    where ``k`` is the step ``2^e`` times what was folded in, such as a batch normalization; where that is negative,
    the sign goes to the integers. The bytes of the written file are unpacked again and compared, and so are its
    answers with those of Keras. Call ``scc_tf.remove_dead_channels`` first: here channels without bits cost as much as
    others.

    =============  ====================================================  ===================================
    compute        how                                                   outputs against Keras
    =============  ====================================================  ===================================
    ``"float"``    unpacked to float32 once, as the interpreter loads    differ by about 1e-6 of their range
    ``"dynamic"``  integer products, activations rounded at run time     about 1e-2
    ``"int8"``     integer products, ranges of activations from data     some 1e-2; more beyond the data's range
    =============  ====================================================  ===================================

    Integer products are faster than float32 on processors with instructions for them (dot products of int8: VNNI,
    ARM's dotprod) and may be slower on others. Depthwise kernels compute in float with ``"dynamic"``, which has no fast
    integer kernel for them.

    One int8 scale holds for a whole tensor. If the answers of the ``"int8"`` file were more than 10 % of their spread
    or 5 % of the classes away from the float network, those activations stay float that cost most, one by one: masks
    of attention, or what a normalization makes of nearly constant columns. Loops of recurrent layers always do. What is
    still too far away is written with a warning.

    Args:
        model: Sequential or functional model with self-compressing layers; the file takes a batch of one.
        path: file to write; its folder is made if need be.
        compute: ``"float"``, ``"dynamic"`` or ``"int8"``. The last needs ``representative_data`` and the package
            ai-edge-quantizer (``pip install 'scc_tf[int8]'``); inputs and outputs stay float32.
        storage: ``"int8"``; ``"int4"`` for int4 wherever it fits and the interpreter can compute with it, which is
            smaller but slow outside Dense layers; ``"auto"`` for int4 only where it costs no time: Dense layers with
            integer compute; or ``"float32"`` for the reference, the same model with float weights, which any Keras
            model has.
        representative_data: for ``compute="int8"``, iterable or array of inputs, with or without a batch, or for
            several inputs what the model takes; their smallest and largest activations become the ranges. The answers
            to up to 256 of them are compared. Without them, as ``"dynamic"`` may be and ``"float"`` is, the answers to
            inputs that are made up.
        lanes: float32 numbers in a vector of the processor that will run the file, if convolutions with fewer filters
            shall fill them: 16 with AVX-512, 8 with AVX2 or NEON. They compute several pixels at once then, which is
            faster there, makes the file larger, and is slower on a processor with shorter vectors. The outputs are the
            same; the report has the kernels as they are in the model. Only with ``storage="float32"``.

    Returns:
        `TFLiteReport`; ``print`` it for a table. It has the ``agreement`` and ``error`` of the answers, and whether the
        file keeps the safety contract of the model, if it has one. Its ``fallbacks`` name what is not stored or
        computed as asked for: layers that do not self-compress stay float32; codes beyond int8 become float16 where
        that is exact and float32 otherwise; kernels with -128, which TFLite does not allow in integer products, are
        computed in float.

    Raises:
        ValueError: if an argument is unknown or missing, if the model has no self-compressing layer, is subclassed
            or not built, has an input of unknown size, computes in another precision than float32, has weights that
            are not finite, or needs more than the built-in operators of TFLite or a state between calls.
        RuntimeError: if the written file does not hold the learned integers, or computes in float and answers otherwise
            than Keras, by more than 0.1 % of the spread of the answers. No file is left then.

    Source: the TFLite 8-bit quantization specification (ai.google.dev/edge/litert).

    Example:
        >>> import keras, pathlib, scc_tf, tempfile
        >>> model = keras.Sequential([keras.Input((8,)), scc_tf.layers.Dense(4, name="head")])
        >>> report = export_tflite(model, pathlib.Path(tempfile.mkdtemp()) / "model.tflite")
        >>> [(kernel.layer, kernel.type, kernel.bytes) for kernel in report.kernels]
        [('head', 'int8', 32)]
    """
    path = check_path("path", path)
    _check_arguments(model, compute, storage, lanes, representative_data)
    samples = None if representative_data is None and compute != "int8" else _samples(representative_data, model)
    kernels = kernels_of(model)
    if storage != "float32" and not any(kernel.learned for kernel in kernels):
        raise ValueError(
            "Expected a model with self-compressing layers (see scc_tf.self_compress), or storage='float32'. "
            f"Received: {model.name!r} with none"
        )
    float_model = read(float_bytes(model))
    make_names_unique(float_model)
    filters = find_filters(float_model)
    missing = match_filters(filters, kernels)
    find_output_scales(float_model, filters)
    decisions = [decide(item, compute, storage) for item in filters]
    rewritten, names, kept = _rewrite(read(pack(float_model)), decisions, samples if compute == "int8" else None)
    if compute != "int8":  # float32 activations
        replace_unit_pools(rewritten)
    if lanes is not None:
        fill_lanes(rewritten, lanes)
    set_versions(rewritten)
    places = strip(rewritten)
    data = pack(rewritten)
    with atomic_path(path) as partial:
        partial.write_bytes(data)
        written = partial.read_bytes()
        verify(written, [(places[name], decision) for name, decision in names.items()])
        measured = check_answers(written, path, model, compute, samples)
    strip(float_model)
    return TFLiteReport(
        path=str(path),
        compute=compute,
        storage=storage,
        bytes=len(data),
        float32_bytes=len(pack(float_model)),
        kernels=tuple(_row(decision) for decision in decisions),
        fallbacks=() if storage == "float32" else tuple(_fallbacks(decisions, missing, model, kept)),
        **measured,
    )


def _check_arguments(model, compute, storage, lanes, representative_data):
    check_convertible(model)
    check_weights(model)
    check_choice("compute", compute, COMPUTES)
    check_choice("storage", storage, STORAGES)
    if storage == "float32" and compute != "float":
        raise ValueError(f"Expected compute='float' for storage='float32'. Received: compute={compute!r}")
    if lanes is not None and check_count("lanes", lanes) and storage != "float32":
        raise ValueError(f"Expected lanes with storage='float32' only. Received: {lanes=}, {storage=}")
    if compute == "int8":
        check_installed()
    elif representative_data is not None and compute == "float":
        raise ValueError(
            "Expected representative_data with compute='dynamic' or with compute='int8' only. Received: compute='float'"
        )


def _samples(representative_data, model):
    """``{name in the file: array (N, …)}``."""
    return dict(zip(input_names(model), representative_samples(representative_data, model), strict=True))


def _rewrite(model, decisions, samples):
    """Write the decisions into a model.

    Returns:
        The model, ``{tensor name: decision}`` of what was stored, and the names of operators that int8 would ruin.
    """
    stored = sorted((d for d in decisions if d.values is not None), key=lambda decision: not decision.raw)
    for decision in stored:
        move_scales(model, decision)
    strip(model, names=False)
    if samples is not None:
        return quantize_activations(model, stored, samples)
    return model, {write(model, decision): decision for decision in stored}, ()


def _row(decision):
    item = decision.filter
    channels = len(item.weights)
    compute = "integer" if decision.raw else "float"
    return StoredKernel(_label(item), item.op, decision.type, compute, channels, item.weights.size, decision.bytes)


def _label(item):
    return str(item.kernel) if item.kernel is not None else item.tensor


def _fallbacks(decisions, missing, model, kept):
    """Pairs ``(layer or tensor, reason)``: filters, kernels that are in none, and other layers with matrices."""
    for decision in decisions:
        if decision.reason:
            yield _label(decision.filter), decision.reason
    for kernel in missing:
        yield str(kernel), "the converted graph has no filter that is this kernel times scales: float32"
    for layer in {id(layer): layer for layer in all_layers(model, include_self=False)}.values():
        known = isinstance(layer, keras.Model) or entry_of(layer) in entries()
        if not known and any(len(weight.shape) > 1 for weight in own_trainable_variables(layer)):
            yield layer.name, f"{type(layer).__name__} does not self-compress"
    if kept:
        names = ", ".join(sorted(kept))
        yield f"{len(kept)} operators", f"float, since int8 for what they take or make would spoil the answers: {names}"
