"""Settings of the pipelines: dataclass fields that say what they mean."""

import dataclasses

__all__ = ["setting"]


def setting(default, help_text):
    """A field of a ``Config``; experiments make a flag with this help text from it."""
    return dataclasses.field(default=default, metadata={"help": help_text})
