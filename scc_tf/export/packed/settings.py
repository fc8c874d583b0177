"""What a layer's configuration says beyond its class, and which classes a file may name."""

import contextlib
import json
import sys

import keras

__all__ = ["FIXED_DTYPE", "check_objects", "minimal_settings", "resolve", "standard_settings", "tag_of"]

FIXED_DTYPE = {
    "module": "keras",
    "class_name": "DTypePolicy",
    "config": {"name": "float32"},
    "registered_name": None,
}
_REFUSED = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
_PLAIN = ("__keras_tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
_FUNCTION_MODULES = ("builtins", "keras.activations", "keras.ops")


@contextlib.contextmanager
def standard_settings():
    """Keras's global dtype and data format as they are out of the box: defaults are left out of a file."""
    policy, data_format = keras.config.dtype_policy(), keras.config.image_data_format()
    try:
        keras.config.set_dtype_policy("float32")
        keras.config.set_image_data_format("channels_last")
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(data_format)


def tag_of(layer):
    """The class of a serialized layer as text: ``Dense``, ``package>Name``, or ``module:Name`` elsewhere in Keras.

    Raises:
        ValueError: if `resolve` would refuse it.
    """
    registered, module, name = layer.get("registered_name"), layer["module"], layer["class_name"]
    if registered and keras.saving.get_registered_object(registered) is not None:
        tag = registered
    else:
        tag = name if module == "keras.layers" else f"{module}:{name}"
    resolve(tag)
    return tag


def resolve(tag):
    """The class of a tag and the module under which Keras looks for it.

    Nothing is imported: a module of Keras that is not loaded holds no class that Keras itself uses.

    Raises:
        ValueError: if the tag is neither a layer or operation of Keras nor registered with it, or runs stored code.
    """
    module = "keras.layers"
    if ">" in str(tag):
        module, cls = None, keras.saving.get_registered_object(tag)
    elif ":" in str(tag):
        module, _, name = tag.partition(":")
        cls = getattr(_keras_module(module), name, None)
    else:
        cls = getattr(keras.layers, str(tag), None)
    if not (isinstance(cls, type) and issubclass(cls, keras.Operation)):
        raise ValueError(f"Expected a class of Keras, or one registered with it before loading. Received: {tag!r}")
    if cls.__module__.startswith("keras.") and cls.__name__ in _REFUSED:
        raise ValueError(f"Expected layers that neither run stored code nor read files. Received: {tag!r}")
    return cls, module


def _keras_module(name):
    return sys.modules.get(name) if name == "keras" or str(name).startswith("keras.") else None


def check_objects(value):
    """Refuse settings that name anything but objects of Keras and registered ones, at any depth.

    Raises:
        ValueError: see above.
    """
    if isinstance(value, dict):
        if "class_name" in value:
            _check_object(value)
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            check_objects(item)


def _check_object(value):
    name, module, registered = (value.get(k) for k in ("class_name", "module", "registered_name"))
    if name in _PLAIN:
        return
    if registered and keras.saving.get_registered_object(registered) is not None:
        return
    if name == "function":
        known = module in _FUNCTION_MODULES and isinstance(value.get("config"), str)
    else:
        cls = getattr(_keras_module(module), str(name), None)
        known = isinstance(cls, type) and name not in _REFUSED and hasattr(cls, "from_config")
    if not known:
        raise ValueError(f"Expected an object of Keras or one registered with it. Received: {module}.{name}")


_KNOWN = {}  # (class, settings) -> minimal settings; configurations repeat within a model and between saves


def minimal_settings(layer, config, name):
    """The settings without which the class would make another layer.

    A setting is left out if the layer made without it has the same configuration, initializers aside. A dtype of
    float32 is left out too: it is put back when reading.

    Args:
        layer: serialized layer.
        config: its configuration without the name.
        name: its name.

    Raises:
        ValueError: if the settings name an object that may not be restored.
    """
    cls, _ = resolve(tag_of(layer))
    config = json.loads(json.dumps(_without_build(config)))
    check_objects({k: v for k, v in config.items() if not k.endswith("_initializer")})
    key = (cls, json.dumps({k: v for k, v in config.items() if not k.endswith("_initializer")}, sort_keys=True))
    if key not in _KNOWN:
        if len(_KNOWN) > 10_000:
            _KNOWN.clear()
        _KNOWN[key] = _minimal(cls, config, name)
    return dict(_KNOWN[key])


def _without_build(value):
    if isinstance(value, dict):
        dropped = ("build_config", "compile_config") if "class_name" in value else ()
        return {k: _without_build(v) for k, v in value.items() if k not in dropped}
    return [_without_build(v) for v in value] if isinstance(value, list | tuple) else value


def _minimal(cls, config, name):
    reference = _effect(cls, config, name)
    if reference is None:
        return config
    kept = dict(config)
    for key in config:
        trial = {k: v for k, v in kept.items() if k != key}
        if _effect(cls, trial, name) == reference:
            kept = trial
    return kept


def _effect(cls, config, name):
    """The configuration, initializers aside, of the layer made from ``config``; None if none is made."""
    try:
        made = cls.from_config(json.loads(json.dumps({"name": name, **config})))
        full = keras.saving.serialize_keras_object(made)["config"]
    except Exception:  # a required setting is missing
        return None
    return json.dumps({k: v for k, v in full.items() if not k.endswith("_initializer")}, sort_keys=True)
