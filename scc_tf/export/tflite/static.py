"""Int8 activations, calibrated on data, around weights that are integers already: AI Edge Quantizer's part.

The quantizer leaves integer weights and their scales alone. Its own calibration is a moving average of the ranges
of single samples; here it is their true minimum and maximum.
"""

import contextlib
import importlib.util
import io
import re
import warnings

import numpy as np

from scc_tf.export.tflite.flatbuffer import pack, read
from scc_tf.export.tflite.quiet import quiet

__all__ = ["calibration_samples", "check_installed", "quantize_activations"]


def check_installed():
    """Refuse int8 compute without its optional packages.

    Raises:
        ValueError: if ``ai-edge-quantizer`` is not installed.
    """
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise ValueError(
            "Expected the package ai-edge-quantizer for compute='int8' (pip install 'scc_tf[tflite]'). "
            "Received: an installation without it"
        )


def calibration_samples(data, model):
    """Check representative data and cut it into samples with a batch of one.

    Args:
        data: iterable of inputs, or one array of them; each of the model's input shape, with or without a batch.
        model: Keras model with one input.

    Returns:
        List of arrays ``(1, *input shape)`` in the input's type.

    Raises:
        ValueError: if the model has several inputs, or the data is missing, empty, of another shape or not finite.
    """
    if len(model.inputs) != 1:
        raise ValueError(f"Expected a model with one input for compute='int8'. Received: {len(model.inputs)} inputs")
    if data is None:
        raise ValueError("Expected representative_data for compute='int8'. Received: representative_data=None")
    shape, dtype = tuple(model.inputs[0].shape[1:]), model.inputs[0].dtype
    samples = []
    for entry in [data] if getattr(data, "shape", None) == shape else data:
        entry = _as_array(entry, shape)
        samples += list(entry.astype(dtype).reshape(-1, 1, *shape))
    if not samples:
        raise ValueError("Expected at least one input in representative_data. Received: none")
    return samples


def _as_array(entry, shape):
    array = None if isinstance(entry, tuple | dict | str) else np.asarray(entry)
    fits = array is not None and array.dtype.kind in "biuf" and array.ndim - len(shape) in (0, 1)
    if not fits or array.shape[array.ndim - len(shape) :] != shape:
        raise ValueError(
            f"Expected representative_data of inputs of shape {shape}, with or without a batch. "
            f"Received: {type(entry).__name__}" + ("" if array is None else f" of {array.dtype} {array.shape}")
        )
    if not np.isfinite(array).all():
        raise ValueError("Expected finite representative_data. Received: an input with NaN or infinity")
    return array


def _recipe(keep_float):
    """Int8 for every operator but the ends, and those that make the tensors named in ``keep_float``."""
    from ai_edge_quantizer import algorithm_manager, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(".*", Operation.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    untouched = [(".*", Operation.INPUT), (".*", Operation.OUTPUT)]
    untouched += [(rf"^{re.escape(name)};", Operation.ALL_SUPPORTED) for name in keep_float]
    for regex, operation in untouched:
        recipe.add_quantization_config(regex, operation, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    return recipe


def quantize_activations(model, float_model, samples, keep_float):
    """Give a model with integer weights int8 activations; inputs and outputs stay float.

    Args:
        model: ``ModelT`` whose raw weights are integers; every tensor has a name of its own.
        float_model: the same graph with float weights, to calibrate on.
        samples: from `calibration_samples`.
        keep_float: names of tensors whose operators stay float.

    Returns:
        The new ``ModelT``; tensors keep their names.
    """
    from ai_edge_quantizer import calibrator, quantizer
    from ai_edge_quantizer.utils import qsv_utils

    recipe = _recipe(keep_float)
    signature = model.signatureDefs[0]
    key, name = signature.signatureKey.decode(), signature.inputs[0].name.decode()
    # Held back: notes, progress bars, and a warning of the memory that calibration takes.
    with quiet(), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        calibration = calibrator.Calibrator(pack(float_model), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
        calibration.calibrate({key: [{name: sample} for sample in samples]}, recipe)
        ranges = calibration.get_model_qsvs()
        if not ranges:  # every operator stays float
            return model
        tool = quantizer.Quantizer(pack(model), recipe.get_quantization_recipe())
        result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return read(result.quantized_model)
