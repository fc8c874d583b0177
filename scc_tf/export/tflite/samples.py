"""Representative data of the caller: what the file is calibrated on and asked."""

import numpy as np

from scc_tf.arguments import received
from scc_tf.export.tflite.conversion import input_names
from scc_tf.export.tflite.interpreter import as_type
from scc_tf.inference import check_inputs

__all__ = ["representative_samples", "spread_over"]

NAME = "representative_data"


def representative_samples(data, model):
    """Representative data as ``{name in the file: array (N, …)}``, in the types and the order of the model's inputs.

    For a model with one input an array of inputs, with or without a batch, or an iterable of those; for one with
    several inputs a list or dict with an array ``(N, …)`` for each. Anything else is a ValueError.
    """
    if data is None:
        raise ValueError(f"Expected {NAME} for compute='int8'. Received: {NAME}=None")
    arrays = check_inputs(NAME, data if len(model.inputs) > 1 else _joined(data, model.inputs[0]), model)
    types = [tensor.dtype for tensor in model.inputs]
    typed = [as_type(NAME, array, dtype) for array, dtype in zip(arrays, types, strict=True)]
    return dict(zip(input_names(model), typed, strict=True))


def _joined(data, tensor):
    """One array ``(N, …)`` of an array or an iterable of arrays, each with or without a batch."""
    shape = tuple(tensor.shape[1:])
    if isinstance(data, dict | str) or not hasattr(data, "__iter__"):
        raise ValueError(f"Expected {NAME} to be inputs of shape {shape}. {received(NAME, data)}")
    entries = [data] if tuple(getattr(data, "shape", ()))[-len(shape) :] == shape else data
    arrays = []
    for entry in entries:
        array = None if isinstance(entry, tuple | dict | str) else np.asarray(entry)
        if array is None or array.shape[max(array.ndim - len(shape), 0) :] != shape or array.ndim > len(shape) + 1:
            raise ValueError(
                f"Expected {NAME} of inputs of shape {shape}, with or without a batch. {received(NAME, entry)}"
            )
        arrays.append(array.reshape(-1, *shape))
    if not arrays or not any(map(len, arrays)):
        raise ValueError(f"Expected at least one input in {NAME}. Received: none")
    return np.concatenate(arrays)


def spread_over(samples, most):
    """At most ``most`` examples of ``{name: array (N, …)}``, evenly spread over them."""
    count = len(next(iter(samples.values())))
    chosen = np.linspace(0, count - 1, min(most, count)).astype(int)
    return {name: array[chosen] for name, array in samples.items()}
