"""From a Keras model to a float32 TFLite model with a fixed batch of one."""

import contextlib
import functools
import logging
import re
import tempfile

import keras
import tensorflow as tf

from scc_tf.conversion import to_plain
from scc_tf.graph import clone_graph, copy_layer, copy_state
from scc_tf.keras_private import all_layers

__all__ = ["check_convertible", "file_name", "float_bytes", "in_float32", "input_names", "output_names", "quiet"]

_TEXTS = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.TextVectorization, keras.layers.Hashing)


@contextlib.contextmanager
def quiet():
    """Within the block, no logger says anything below a warning; absl's and TensorFlow's are among them."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)


def file_name(name):
    """What an input of that name is called in the file."""
    return re.sub(r"^(?=\d)|\W", "_", name, flags=re.ASCII)


def input_names(model):
    """The names of a model's inputs in the file, in the order of ``model.inputs``."""
    names = []
    for tensor in model.inputs:
        name = file_name(tensor.name)
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


def check_convertible(model):
    """Refuse, before any work, a model that the built-in operators of TFLite cannot compute: see `_problems`."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        name = f"{type(model).__name__} {getattr(model, 'name', '')!r}"
        raise ValueError(f"Expected a built Sequential or functional Keras model. Received: {name}")
    problems = list(_problems(model))
    if problems:
        raise ValueError("Expected {}. Received: {}".format(*problems[0]))


def _problems(model):
    """Pairs of what is expected and what was received."""
    outputs = _outputs(model)
    if any(not isinstance(o, keras.KerasTensor) for o in (outputs.values() if isinstance(outputs, dict) else outputs)):
        yield "outputs that are tensors, in a list or a dict of one level", f"{model.name!r} with several levels"
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            shape = tuple(tensor.shape)
            yield "inputs whose shape is known but for the batch", f"input {tensor.name!r} of shape {shape}"
    for layer in all_layers(model):
        if isinstance(layer, _TEXTS):
            yield "no layers for words (look them up before the model)", f"layer {layer.name!r}, {type(layer).__name__}"
        if getattr(layer, "stateful", False):
            yield "layers with no state between calls", f"stateful layer {layer.name!r}"
    for tensor in model.inputs:
        if tensor.dtype == "string":
            yield "inputs that are numbers", f"input {tensor.name!r} of strings"


def in_float32(model):
    """The model, or a copy that computes in float32 if a layer of it does not; the weights are the same."""
    layers = [layer for layer in all_layers(model, include_self=False) if layer.weights]
    if not any(layer.compute_dtype in ("float16", "bfloat16", "float64") for layer in layers):
        return model

    def clone_layer(layer):
        if isinstance(layer, keras.layers.Lambda):
            return copy_layer(layer)
        return type(layer).from_config(_with_float32(layer.get_config()))

    copy, pairs = clone_graph(model, clone_layer)
    for layer, clone in pairs:
        copy_state(layer, clone)
    return copy


def _with_float32(config):
    """A layer's configuration in which it, and the layers inside it, compute in float32."""
    if isinstance(config, dict):
        return {k: "float32" if k == "dtype" and _is_policy(v) else _with_float32(v) for k, v in config.items()}
    return [_with_float32(value) for value in config] if isinstance(config, list) else config


def _is_policy(value):
    name = value["config"]["name"] if isinstance(value, dict) and "config" in value else value
    return isinstance(name, str) and "float" in name


def float_bytes(model):
    """Bytes of a float32 ``.tflite`` file, as the converter writes it; kernels are what the layers multiply by.

    Raises:
        ValueError: if the model needs more than the built-in operators of TFLite.
    """
    plain, names = to_plain(model), iter(input_names(model))
    signature = keras.tree.map_structure(
        lambda tensor: keras.InputSpec(shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=next(names)), plain.input
    )
    with tempfile.TemporaryDirectory() as folder, quiet():
        archive = keras.export.ExportArchive()
        archive.track(plain)
        archive.add_endpoint("serve", functools.partial(plain.__call__, training=False), input_signature=[signature])
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.experimental_enable_resource_variables = True
        try:
            return converter.convert()
        except Exception as error:  # the converter's own class is not public
            if type(error).__name__ != "ConverterError":
                raise
            raise ValueError(
                "Expected a model that the built-in operators of TFLite can compute. "
                f"Received: {model.name!r}, which needs {_needs(plain, str(error))}"
            ) from error


def _needs(model, message):
    """The operators that an error of the converter names, and the layers that it finds them in."""
    operators = sorted(set(re.findall(r"'tf\.(\w+)' op is neither", message)))
    scopes = " ".join(re.findall(r'"\w+:", "([^"]*)"', message))
    names = [layer.name for layer in all_layers(model, include_self=False)]
    layers = [name for name in names if re.search(rf"(^|[ /]){re.escape(name)}(_\d+)?/", scopes)]
    if not operators:
        return " ".join(message.split())[:300]
    return ", ".join(operators) + (f" (layer {', '.join(layers)})" if layers else "")
