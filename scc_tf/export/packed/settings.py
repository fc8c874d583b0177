"""What a layer's configuration says beyond its class."""

import contextlib
import json

import keras

from scc_tf.allowed import check_layer

__all__ = ["FIXED_DTYPE", "minimal_settings", "standard_settings"]

FIXED_DTYPE = {
    "module": "keras",
    "class_name": "DTypePolicy",
    "config": {"name": "float32"},
    "registered_name": None,
}


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
    cls, config = check_layer({**layer, "config": config})
    config = json.loads(json.dumps(config))
    key = (cls, json.dumps({k: v for k, v in config.items() if not k.endswith("_initializer")}, sort_keys=True))
    if key not in _KNOWN:
        if len(_KNOWN) > 10_000:
            _KNOWN.clear()
        _KNOWN[key] = _minimal(cls, config, name)
    return dict(_KNOWN[key])


def _minimal(cls, config, name):
    reference = _effect(cls, config, name)
    if reference is None:
        return config
    kept = dict(config)
    for key in [key for key in config if key != "vocabulary_size" or not config[key]]:  # the made one has no vocabulary
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
