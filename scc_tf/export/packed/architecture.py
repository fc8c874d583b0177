"""The architecture of a functional model in as few bytes as possible, and back, without trusting the bytes.

The configuration that Keras writes for a small network takes 10 kB. Here every layer is ``[class, name, settings,
calls]``, where the settings lack what the class sets by itself and the initializers, and the calls are left out of a
layer that takes the output of the layer before it. The JSON text of it starts the stream. The model of texts knows the
texts of the networks that ``architecture.dict`` holds: one of those, with other widths, takes 6 to 15 bytes. The
dictionary is part of the format and never changes.

Reading builds nothing but layers and operations of a list and classes registered with Keras
(`scc_tf.allowed`), within bounds (`scc_tf.export.packed.bounds`).
"""

import json

import keras
import numpy as np

from scc_tf.allowed import ARRAYS, check_objects, resolve, tag_of
from scc_tf.export.packed.bounds import bounded, check_work
from scc_tf.export.packed.settings import FIXED_DTYPE, minimal_settings, standard_settings
from scc_tf.training import SelfCompressingModel, self_compressing_layers

__all__ = ["build_architecture", "compact_architecture", "functional"]

_TENSOR = "__keras_tensor__"
_KINDS = dict(zip(ARRAYS, "tn", strict=True))
_CONSTANT = "#"  # the mark of a constant's number
_BUILD = "build_config"


def compact_architecture(model):
    """The architecture of a functional model, as JSON has it.

    Names, settings and shared layers are kept, initializers and the compilation are not.

    Args:
        model: the model.

    Returns:
        ``(compact, constants)``: dict; list of ``(kind, array)`` of every array in the graph and in settings, whose
        number stands in its place: of a tensor, ``"t"``, or of NumPy, ``"n"``.

    Raises:
        ValueError: if a layer cannot be restored: a Lambda, a class not registered with Keras.
    """
    constants = []
    with standard_settings():
        try:
            config = model.get_config()
        except NotImplementedError as error:
            raise ValueError(
                "Expected operations whose arguments Keras stores; arrays among them, as in "
                f"clip(x, array, array), it does not. Received: {model.name!r}: {' '.join(str(error).split())[:60]}…"
            ) from error
        config.pop("cuts", None)  # a history that only weights of the larger model need
        return _compact_model(config, constants), constants


def build_architecture(compact, max_weights, constants=()):
    """Build the model of a `compact_architecture`, with fresh weights.

    Args:
        compact: dict.
        max_weights: most weights that may be created, in all variables together.
        constants: ``(kind, array)`` of the arrays whose numbers it has.

    Returns:
        `scc_tf.SelfCompressingModel`, not compiled; a plain functional model if no layer is self-compressing.

    Raises:
        ValueError: if it is damaged, names an unknown class, or asks for more than ``max_weights``.
    """
    config = _full_model(compact, constants, max_depth=20)
    check_work(config)
    if "cuts" in config or not isinstance(config.get("starting_weights", 0), int | float | None):
        raise ValueError("Expected a model without a history of cuts. Received: one, or starting_weights of no number")
    with bounded(max_weights), standard_settings():
        model = SelfCompressingModel.from_config(config)
    return model if self_compressing_layers(model) else functional(model, keras.Model)


def functional(model, cls):
    """The graph of a built Sequential or functional model as a model of class ``cls``."""
    ends = (model.inputs[0], model.outputs[0]) if isinstance(model, keras.Sequential) else (model.input, model.output)
    return cls(*ends, name=model.name)


# Compacting ----------------------------------------------------------------------------------------------------------


def _compact_model(config, constants):
    """A functional or Sequential configuration as ``{"name": …, "layers": [[class, name, settings, calls], …], …}``."""
    config = dict(config)
    layers = config.pop("layers")
    places = {_name_of(layer): place for place, layer in enumerate(layers)}
    compact = {"name": config.pop("name"), "layers": []}
    compact["layers"] = [_compact_layer(p, x, places, constants) for p, x in enumerate(layers)]
    if config.pop("trainable", True) is not True:
        compact["trainable"] = False
    for key, default in (("input_layers", layers[0]), ("output_layers", layers[-1])):
        if config.get(key) == [_name_of(default), 0, 0]:
            config.pop(key)
    if config.get("dtype") and _json(config["dtype"]) == _json(FIXED_DTYPE):
        config.pop("dtype")
    return {**compact, **{k: v for k, v in config.items() if v is not None}}


def _json(value):
    return json.dumps(value, sort_keys=True)


def _compact_layer(place, layer, places, constants):
    config = dict(layer["config"])
    name = _name_of(layer)
    config.pop("name", None)
    if "layers" in config:
        settings = _compact_model({"name": None, **config}, constants)
        settings.pop("name")
    else:
        settings = _compact_settings(layer, config, constants)
    calls = [_compact_call(place, node, places, constants) for node in layer.get("inbound_nodes", ())]
    expected = [] if place == 0 or "inbound_nodes" not in layer else [[[{"@": 1}]]]
    compact = [tag_of(layer), name, settings, calls]
    if calls == expected or "inbound_nodes" not in layer:
        compact.pop()
        if not settings:
            compact.pop()
    return compact


def _name_of(layer):
    """The name of a serialized layer; one in a Sequential need not have any."""
    return layer["config"].get("name") or layer.get("name") or layer["class_name"]


def _compact_settings(layer, config, constants):
    """The settings that matter; arrays in them by their numbers."""
    plain, numbered = {}, {}
    try:
        cls, module = resolve(tag_of(layer))
        for key, value in config.items():
            before = len(constants)
            marked = _numbered(value, constants)
            (plain if len(constants) == before else numbered)[key] = marked if len(constants) > before else value
        settings = minimal_settings(layer, plain, _name_of(layer))
    except ValueError as error:
        raise ValueError(f"{error} (layer {_name_of(layer)!r})") from error
    if "name" not in layer["config"]:  # Keras tells what its class was called with
        settings = {**plain, "name": None}
    if module is None and cls.build_from_config is not keras.layers.Layer.build_from_config:
        settings[_BUILD] = layer["build_config"]
    return settings | numbered


def _numbered(value, constants):
    """A serialized value with the numbers of its arrays in place of them, which go to ``constants``."""
    if isinstance(value, dict):
        if kind := _KINDS.get(value.get("class_name")):
            if value["config"]["dtype"] == "string":
                raise ValueError("Expected constants that are numbers. Received: strings")
            constants.append((kind, np.array(value["config"]["value"], value["config"]["dtype"])))
            return {_CONSTANT: len(constants) - 1}
        return {key: _numbered(item, constants) for key, item in value.items()}
    return [_numbered(item, constants) for item in value] if isinstance(value, list | tuple) else value


def _compact_call(place, node, places, constants):
    def compact(value):
        if isinstance(value, dict) and value.get("class_name") == _TENSOR:
            name, *rest = value["config"]["keras_history"]
            rest = [place - places[name], *rest]
            while not rest[-1] and len(rest) > 1:
                rest.pop()
            return {"@": rest[0] if len(rest) == 1 else rest}
        if isinstance(value, dict):
            return {k: compact(v) for k, v in value.items()}
        return [compact(v) for v in value] if isinstance(value, list | tuple) else value

    arguments = {name: value for name, value in node["kwargs"].items() if not (name == "mask" and value is None)}
    call = [_numbered(compact(node["args"]), constants), _numbered(compact(arguments), constants)]
    return call if arguments else call[:1]


# Restoring -----------------------------------------------------------------------------------------------------------


def _full_model(compact, constants, max_depth):
    """The configuration that Keras reads."""
    if not max_depth:
        raise ValueError("Expected models nested at most 20 deep. Received: deeper")
    config = dict(compact)
    layers = config.pop("layers")
    names = [layer[1] for layer in layers]
    full = [_full_layer(place, layer, names, constants, max_depth) for place, layer in enumerate(layers)]
    check_objects({k: v for k, v in config.items() if k not in ("input_layers", "output_layers")})
    first, last = [names[0], 0, 0], [names[-1], 0, 0]
    return {"trainable": True, "input_layers": first, "output_layers": last, **config, "layers": full}


def _full_layer(place, layer, names, constants, max_depth):
    tag, name, settings, calls = [*layer, *[{}, None][len(layer) - 2 :]]
    cls, module = resolve(tag)
    if "layers" in settings:
        config = _full_model({"name": name, **settings}, constants, max_depth - 1)
        if issubclass(cls, keras.Sequential):
            del config["input_layers"], config["output_layers"]
            config.setdefault("dtype", "float32")
    else:
        check_objects(settings)
        config = {"name": name, **_with_arrays(settings, constants)}
        if config["name"] is None:
            del config["name"]
        elif issubclass(cls, keras.layers.Layer):
            config = {"dtype": "float32", **config} if "dtype" not in settings else config
    if calls is None:
        calls = [[[{"@": 1}]]] if place else []
    build = config.pop(_BUILD, None) if module is None else None
    return {
        "module": module,
        "class_name": cls.__name__,
        "config": config,
        "registered_name": tag if ">" in tag else None,
        "name": name,
        "inbound_nodes": [_full_call(place, call, names, constants) for call in calls],
        _BUILD: build,
    }


def _with_arrays(value, constants):
    """A value of the text with its constants, as Keras serializes them, in place of their numbers."""
    if isinstance(value, dict):
        if constants and value.keys() == {_CONSTANT}:
            if value[_CONSTANT] not in range(len(constants)):
                raise ValueError(f"Expected one of {len(constants)} constants. Received: number {value[_CONSTANT]}")
            kind, array = constants[value[_CONSTANT]]
            name = ARRAYS["tn".index(kind)]
            return {"class_name": name, "config": {"value": array, "dtype": str(array.dtype)}}
        return {key: _with_arrays(item, constants) for key, item in value.items()}
    return [_with_arrays(item, constants) for item in value] if isinstance(value, list) else value


def _full_call(place, call, names, constants):
    def full(value):
        if isinstance(value, dict) and value.keys() == {"@"}:
            back, *rest = value["@"] if isinstance(value["@"], list) else [value["@"]]
            if not 0 <= place - back < len(names):
                raise ValueError(f"Expected a layer from 0 to {len(names) - 1}. Received: {place - back}")
            history = [names[place - back], *rest, *[0, 0][len(rest) :]]
            return {"class_name": _TENSOR, "config": {"shape": [], "dtype": "float32", "keras_history": history}}
        if isinstance(value, dict):
            return {k: full(v) for k, v in value.items()}
        return [full(v) for v in value] if isinstance(value, list) else value

    args, kwargs = [*call, {}][:2]
    check_objects(call)
    args, kwargs = _with_arrays(full([args, kwargs]), constants)
    return {"args": args, "kwargs": kwargs}
