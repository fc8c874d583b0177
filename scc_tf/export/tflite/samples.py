"""What the file is calibrated on and asked: representative data of the caller, or made up."""

import numpy as np

from scc_tf.arguments import check_array, received
from scc_tf.export.tflite.interpreter import as_type

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
        return _of_several(data, model.inputs)
    shape, dtype = tuple(model.inputs[0].shape[1:]), model.inputs[0].dtype
    if isinstance(data, dict | str) or not hasattr(data, "__iter__"):
        raise ValueError(f"Expected {NAME} to be inputs of shape {shape}. {received(NAME, data)}")
    whole = getattr(data, "shape", None)
    entries = [data] if whole is not None and tuple(whole)[-len(shape) :] == shape else data
    samples = [as_type(NAME, _as_array(entry, shape), dtype).reshape(-1, *shape) for entry in entries]
    if not samples or not (joined := np.concatenate(samples)).size:
        raise ValueError(f"Expected at least one input in {NAME}. Received: none")
    return [joined]


def _of_several(data, tensors):
    names = [tensor.name for tensor in tensors]
    fits = isinstance(data, dict | list | tuple) and len(data) == len(names)
    if not fits or (isinstance(data, dict) and set(data) != set(names)):
        raise ValueError(f"Expected {NAME} with an array for each of {names}, in this order. {received(NAME, data)}")
    arrays = [data[name] for name in names] if isinstance(data, dict) else data
    checked = [
        as_type(label, check_array(label, array, shape=(None, *tensor.shape[1:])), tensor.dtype)
        for label, array, tensor in zip((f"{NAME}[{name!r}]" for name in names), arrays, tensors, strict=True)
    ]
    if len({len(array) for array in checked}) > 1:
        raise ValueError(
            f"Expected {NAME} with as many examples for every input. Received: {[len(array) for array in checked]}"
        )
    return checked


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
