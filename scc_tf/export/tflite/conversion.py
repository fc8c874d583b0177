"""From a Keras model to a float32 TFLite model with a fixed batch of one."""

import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from scc_tf.conversion import to_plain
from scc_tf.export.tflite.quiet import quiet

__all__ = ["float_bytes"]


def _signature(model):
    """The inputs as specifications with a batch of one, in the structure that the model takes."""

    def specification(tensor):
        if None in tensor.shape[1:]:
            raise ValueError(
                f"Expected inputs whose shape is known but for the batch. "
                f"Received: input {tensor.name!r} of shape {tuple(tensor.shape)}"
            )
        return keras.InputSpec(shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name)

    return [keras.tree.map_structure(specification, model.input)]


def _check_float32(model):
    for layer in model._flatten_layers():
        if layer.weights and layer.compute_dtype in {"float16", "bfloat16", "float64"}:
            raise ValueError(
                "Expected layers that compute in float32 (load the weights into a model built without mixed "
                f"precision). Received: layer {layer.name!r} that computes in {layer.compute_dtype}"
            )


def float_bytes(model):
    """Convert a Keras model, its self-compressing layers at their quantized values, to a float32 TFLite model.

    Args:
        model: Sequential or functional model.

    Returns:
        bytes of the ``.tflite`` file as TensorFlow's converter writes it, with built-in operators only.

    Raises:
        ValueError: if the model is subclassed or not built, has an input of unknown size, computes in another
            precision than float32, or needs more than the built-in operators.
    """
    plain = to_plain(model)
    _check_float32(plain)
    signature = _signature(plain)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        built_in = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
        try:
            with quiet():
                plain.export(path, "litert", verbose=False, input_signature=signature, target_spec=built_in)
        except Exception as error:  # the converter's own class is not public
            if type(error).__name__ != "ConverterError":
                raise
            raise ValueError(
                f"Expected a model that the built-in operators of TFLite can compute. "
                f"Received: {model.name!r}: {str(error)[:500]}"
            ) from error
        return path.read_bytes()
