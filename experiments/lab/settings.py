"""Settings of the pipelines: dataclass fields that say what they mean."""

import dataclasses
import hashlib
import json
import math
import numbers

import keras
import numpy as np
import tensorflow as tf

from scc_tf.arguments import check_choice, received

__all__ = ["check_settings", "fill_from_presets", "provenance", "setting", "settings_key"]


def setting(default, help_text):
    """A field of a ``Config``; experiments make a flag with this help text from it.

    Args:
        default: value of those who do not ask.
        help_text: what it means.
    """
    return dataclasses.field(default=default, metadata={"help": help_text})


def check_settings(config, rules):
    """Refuse settings that nothing could run with: those of another type than the field says, first of all.

    Args:
        config: a ``Config``.
        rules: ``(names, accepts, wanted)`` each: the settings, a function ``value -> bool``, and what it asks for in
            words.

    Raises:
        ValueError: for the first setting that is not accepted.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(config)}
    ruled = {name for names, *_ in rules for name in names}
    others = [((name,), lambda value: True, f"to be {_KINDS[kinds[name]][1]}") for name in kinds if name not in ruled]
    for names, accepts, wanted in (*rules, *others):
        for name in names:
            value = getattr(config, name)
            if not _is_a(kinds[name], value) or not accepts(value):
                raise ValueError(f"Expected {name} {wanted}. {received(name, value)}")


_KINDS = {  # of a field -> what its values are, in words
    bool: (bool, "True or False"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "a string"),
}


def _is_a(kind, value):
    right = isinstance(value, _KINDS[kind][0]) and isinstance(value, bool) == (kind is bool)
    return right and not (kind is float and math.isnan(value))


def fill_from_presets(config, presets):
    """Give a frozen ``Config`` what suits its ``model``, wherever a setting is None.

    Args:
        config: a ``Config`` that is being made.
        presets: ``{model: {setting: value}}``.

    Raises:
        ValueError: if there are none for the model.
    """
    check_choice("model", config.model, presets)
    for name, value in presets[config.model].items():
        if getattr(config, name) is None:
            object.__setattr__(config, name, value)  # frozen from here on


def provenance(config):
    """What every record begins with: ``config`` without places of folders and files, and the ``versions`` it ran on."""
    return {
        "config": {k: v for k, v in dataclasses.asdict(config).items() if not k.endswith(("_dir", "_file"))},
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__, "numpy": np.__version__},
    }


def settings_key(config, *names):
    """A short hash of the named settings, or of all: what a stage that depends on them alone is cached under.

    Where the data lie decides nothing.
    """
    names = names or [field.name for field in dataclasses.fields(config)]
    chosen = json.dumps({name: getattr(config, name) for name in names if name != "data_dir"})
    return hashlib.sha256(chosen.encode()).hexdigest()[:10]
