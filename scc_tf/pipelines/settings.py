"""Settings of the pipelines: dataclass fields that say what they mean."""

import dataclasses
import hashlib
import json

__all__ = ["setting", "settings_key"]


def setting(default, help_text):
    """A field of a ``Config``; experiments make a flag with this help text from it."""
    return dataclasses.field(default=default, metadata={"help": help_text})


def settings_key(config, *names):
    """A short hash of the named settings: what a stage that depends on them alone is cached under."""
    chosen = json.dumps({name: getattr(config, name) for name in names})
    return hashlib.sha256(chosen.encode()).hexdigest()[:10]
