"""The exporter: a compressed Keras model as a ``.tflite`` file with exactly the learned integers."""

from pathlib import Path
from typing import Any

import keras

from scc_tf.arguments import check_choice, check_count, check_path
from scc_tf.atomic import atomic_path
from scc_tf.export.tflite.answers import check_answers, safety_answers
from scc_tf.export.tflite.conversion import check_convertible, float_bytes, in_float32, input_names
from scc_tf.export.tflite.flatbuffer import TFLiteFile
from scc_tf.export.tflite.int8 import check_installed, quantize_activations
from scc_tf.export.tflite.matching import find_filters, find_kernels, match_filters
from scc_tf.export.tflite.report import StoredKernel, TFLiteReport
from scc_tf.export.tflite.samples import representative_samples
from scc_tf.export.tflite.scales import find_output_scales, move_scales
from scc_tf.export.tflite.speed import fill_lanes, replace_unit_pools
from scc_tf.export.tflite.storage import RAW_OPS, STORAGES, decide, verify, write
from scc_tf.export.tflite.versions import set_versions
from scc_tf.inference import check_weights
from scc_tf.keras_private import all_layers, own_trainable_variables
from scc_tf.layers import CompressedKernels, Masked, entries, entry_of
from scc_tf.safety.contract import contract_of

__all__ = ["export_tflite"]

COMPUTES = tuple(RAW_OPS)


def export_tflite(
    model: keras.Model,
    path: str | Path,
    compute: str = "float",
    storage: str = "int8",
    representative_data: Any = None,
    lanes: int | None = None,
) -> TFLiteReport:
    """Write a compressed model as a TFLite file that holds exactly the integers that it learned.

    Every kind of compressed model is written: self-compressing kernels as integers, masked or not; those that share
    weights, or are masked alone, as floats, since they have no integers.

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
        model: Sequential or functional model with self-compressing, weight-sharing or masked layers; the file takes a
            batch of one. One that computes in another precision, such as mixed_float16, is written as float32.
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
        ValueError: if an argument is unknown or missing, if the model has no compressed layer, is subclassed or not
            built, has an input of unknown size or weights that are not finite, or needs more than the built-in
            operators of TFLite or a state between calls.
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
    samples = None
    if representative_data is not None or compute == "int8":
        samples = representative_samples(representative_data, model)
    contract, model = contract_of(model), in_float32(model)
    float_file = TFLiteFile(float_bytes(model))
    float_file.make_names_unique()
    float_file.order_inputs(input_names(model))
    filters = find_filters(float_file)
    missing = match_filters(filters, find_kernels(model))
    find_output_scales(float_file, filters)
    decisions = [decide(item, compute, storage) for item in filters]
    file, names, kept = _rewrite(float_file.copy(), decisions, samples if compute == "int8" else None)
    if compute != "int8":  # float32 activations
        replace_unit_pools(file)
    if lanes is not None:
        fill_lanes(file, lanes)
    set_versions(file)
    places = file.strip()
    data = file.pack()
    with atomic_path(path) as partial:
        partial.write_bytes(data)
        written = partial.read_bytes()
        verify(written, [(places[name], decision) for name, decision in names.items()])
        measured = check_answers(written, path, model, compute, samples)
        if contract is not None:
            accuracy = contract.accuracy_of_answers(model, safety_answers(written, model, contract.safety_set))
            measured |= contract.check(accuracy, str(path))
    float_file.strip()
    return TFLiteReport(
        path=str(path),
        compute=compute,
        storage=storage,
        bytes=len(data),
        float32_bytes=len(float_file.pack()),
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
    if storage != "float32" and not any(isinstance(x, CompressedKernels | Masked) for x in all_layers(model)):
        raise ValueError(
            "Expected a model with compressed layers (self-compressing, weight-sharing or masked ones, see "
            f"scc_tf.self_compress), or storage='float32'. Received: {model.name!r} with none"
        )


def _rewrite(file, decisions, samples):
    """Write the decisions into a file.

    Returns:
        The file, ``{tensor name: decision}`` of what was stored, and the names of operators that int8 would ruin.
    """
    stored = sorted((d for d in decisions if d.values is not None), key=lambda decision: not decision.raw)
    for decision in stored:
        move_scales(file, decision)
    file.strip(names=False)
    if samples is not None:
        return quantize_activations(file, stored, samples)
    return file, {write(file, decision): decision for decision in stored}, ()


def _row(decision):
    item, compute = decision.filter, "integer" if decision.raw else "float"
    return StoredKernel(
        str(item), item.op, decision.type, compute, len(item.weights), item.weights.size, decision.bytes
    )


def _fallbacks(decisions, missing, model, kept):
    """Pairs ``(layer or tensor, reason)``: filters, kernels that are in none, and other layers with matrices."""
    yield from ((str(decision.filter), decision.reason) for decision in decisions if decision.reason)
    for kernel in missing:
        yield kernel.label, "the converted graph has no filter that is this kernel times scales: float32"
    for layer in all_layers(model, include_self=False):
        known = isinstance(layer, keras.Model) or entry_of(layer) in entries()
        if not known and any(len(weight.shape) > 1 for weight in own_trainable_variables(layer)):
            yield layer.name, f"{type(layer).__name__} does not self-compress"
    if kept:
        first = ", ".join(name.partition(";")[0][-40:] for name in sorted(kept)[:3])
        more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
        yield f"{len(kept)} operators", f"float, since int8 there would spoil the answers: {first}{more}"
