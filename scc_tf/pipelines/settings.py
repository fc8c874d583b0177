"""Settings of the pipelines: dataclass fields that say what they mean."""

import dataclasses
import hashlib
import json

__all__ = ["check_settings", "setting", "settings_key"]


def setting(default, help_text):
    """A field of a ``Config``; experiments make a flag with this help text from it."""
    return dataclasses.field(default=default, metadata={"help": help_text})


def check_settings(config, rules):
    """Refuse settings that nothing could run with.

    Args:
        config: a ``Config``.
        rules: ``(names, accepts, wanted)`` each: the settings, a function ``value -> bool``, and what it asks for in
            words.

    Raises:
        ValueError: for the first setting that is not accepted.
    """
    for names, accepts, wanted in rules:
        for name in names:
            if not accepts(value := getattr(config, name)):
                raise ValueError(f"Expected {name} {wanted}. Received: {name}={value!r}")


def settings_key(config, *names):
    """A short hash of the named settings: what a stage that depends on them alone is cached under."""
    chosen = json.dumps({name: getattr(config, name) for name in names})
    return hashlib.sha256(chosen.encode()).hexdigest()[:10]
