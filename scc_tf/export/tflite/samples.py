"""What the file is calibrated on and asked: representative data of the caller, or made up."""

import numpy as np

from scc_tf.arguments import received
from scc_tf.export.tflite.interpreter import as_type
from scc_tf.inference import check_inputs

__all__ = ["representative_samples", "spread_over"]

NAME = "representative_data"


def representative_samples(data, model):
    """Check representative data.

    Args:
        data: for a model with one input an array of inputs, with or without a batch, or an iterable of those; for one
            with several inputs a list or dict with an array ``(N, …)`` for each.
        model: Keras model.

    Returns:
        List of arrays ``(N, …)`` in the types and the order of the model's inputs.

    Raises:
        ValueError: if the data is missing, empty, of another shape or type, or not finite.
    """
    if data is None:
        raise ValueError(f"Expected {NAME} for compute='int8'. Received: {NAME}=None")
    if len(model.inputs) > 1:
        arrays = check_inputs(NAME, data, model)
        return [as_type(NAME, array, tensor.dtype) for array, tensor in zip(arrays, model.inputs, strict=True)]
    shape, dtype = tuple(model.inputs[0].shape[1:]), model.inputs[0].dtype
    if isinstance(data, dict | str) or not hasattr(data, "__iter__"):
        raise ValueError(f"Expected {NAME} to be inputs of shape {shape}. {received(NAME, data)}")
    whole = getattr(data, "shape", None)
    entries = [data] if whole is not None and tuple(whole)[-len(shape) :] == shape else data
    samples = [as_type(NAME, _as_array(entry, shape), dtype).reshape(-1, *shape) for entry in entries]
    if not samples or not (joined := np.concatenate(samples)).size:
        raise ValueError(f"Expected at least one input in {NAME}. Received: none")
    return [joined]


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


def spread_over(arrays, most):
    """At most ``most`` examples of arrays ``(N, …)``, evenly spread over them."""
    count = len(arrays[0])
    if count <= most:
        return arrays
    chosen = np.linspace(0, count - 1, most).astype(int)
    return [array[chosen] for array in arrays]
