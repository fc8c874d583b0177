"""From a Keras model to a float32 TFLite model with a fixed batch of one."""

import re
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from scc_tf.conversion import to_plain
from scc_tf.export.tflite.quiet import quiet
from scc_tf.keras_private import all_layers

__all__ = ["check_convertible", "float_bytes", "input_names", "output_names"]

_TEXTS = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.TextVectorization, keras.layers.Hashing)


def input_names(model):
    """The names of a model's inputs in the file, in the order of ``model.inputs``."""
    names = []
    for tensor in model.inputs:
        name = re.sub(r"^(?=\d)|\W", "_", tensor.name, flags=re.ASCII)
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def output_names(model):
    """The names of a model's outputs in the file, in the order of ``keras.tree.flatten``."""
    outputs = _outputs(model)
    if isinstance(outputs, dict):
        return sorted(outputs)
    return [f"output_{place}" for place in range(len(keras.tree.flatten(outputs)))]


def _outputs(model):
    """The outputs in the structure that the model returns; a list of one for one."""
    outputs = model.outputs if isinstance(model, keras.Sequential) else model.output
    return [outputs] if isinstance(outputs, keras.KerasTensor) else outputs


def _signature(model):
    """The inputs as specifications with a batch of one, in the structure that the model takes."""
    names = iter(input_names(model))
    return [
        keras.tree.map_structure(
            lambda tensor: keras.InputSpec(shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=next(names)),
            model.input,
        )
    ]


def check_convertible(model):
    """Refuse, before any work, a model that the built-in operators of TFLite cannot compute.

    Args:
        model: Keras model.

    Raises:
        ValueError: if it is subclassed or not built, has an input of unknown size or outputs in a structure of several
            levels, computes in another precision than float32, or has a layer that is stateful or for texts.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            f"Expected a built Sequential or functional Keras model. Received: {type(model).__name__} "
            f"{getattr(model, 'name', '')!r}"
        )
    outputs = _outputs(model)
    if any(not isinstance(o, keras.KerasTensor) for o in (outputs.values() if isinstance(outputs, dict) else outputs)):
        raise ValueError(
            f"Expected outputs that are tensors, in a list or a dict of one level. Received: {model.name!r} with "
            "outputs of several levels"
        )
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                f"Expected inputs whose shape is known but for the batch. "
                f"Received: input {tensor.name!r} of shape {tuple(tensor.shape)}"
            )
    for layer in all_layers(model):
        _check_layer(layer)
    for tensor in model.inputs:
        if tensor.dtype == "string":
            raise ValueError(f"Expected inputs that are numbers. Received: input {tensor.name!r} of strings")


def _check_layer(layer):
    if isinstance(layer, _TEXTS):
        raise ValueError(
            "Expected layers that the built-in operators of TFLite can compute (look words up before the model). "
            f"Received: layer {layer.name!r}, {type(layer).__name__}"
        )
    if getattr(layer, "stateful", False):
        raise ValueError(f"Expected layers with no state between calls. Received: stateful layer {layer.name!r}")
    if layer.weights and layer.compute_dtype in {"float16", "bfloat16", "float64"}:
        raise ValueError(
            "Expected layers that compute in float32 (load the weights into a model built without mixed "
            f"precision). Received: layer {layer.name!r} that computes in {layer.compute_dtype}"
        )


def float_bytes(model):
    """Convert a Keras model, its self-compressing layers at their quantized values, to a float32 TFLite model.

    Args:
        model: Sequential or functional model that `check_convertible` accepts.

    Returns:
        bytes of the ``.tflite`` file as TensorFlow's converter writes it, with built-in operators only.

    Raises:
        ValueError: if the model needs more than the built-in operators.
    """
    plain = to_plain(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        built_in = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
        try:
            with quiet():
                plain.export(path, "litert", verbose=False, input_signature=_signature(plain), target_spec=built_in)
        except Exception as error:  # the converter's own class is not public
            if type(error).__name__ != "ConverterError":
                raise
            raise ValueError(
                "Expected a model that the built-in operators of TFLite can compute. "
                f"Received: {model.name!r}, which needs {_needs(plain, str(error))}"
            ) from error
        return path.read_bytes()


def _needs(model, message):
    """The operators that an error of the converter names, and the layers that it finds them in."""
    operators = sorted(set(re.findall(r"'tf\.(\w+)' op is neither", message)))
    scopes = " ".join(re.findall(r'"\w+:", "([^"]*)"', message))
    names = [layer.name for layer in all_layers(model, include_self=False)]
    layers = [name for name in names if re.search(rf"(^|[ /]){re.escape(name)}(_\d+)?/", scopes)]
    if not operators:
        return " ".join(message.split())[:300]
    return ", ".join(operators) + (f" (layer {', '.join(layers)})" if layers else "")
