"""absl flags made from the fields of a pipeline's ``Config``: one place for every default and help text."""

import dataclasses
import sys

from absl import flags

_DEFINE = {int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}


def define_flags(config_class, **overrides):
    """Define one flag per field; ``overrides`` change defaults."""
    for field in dataclasses.fields(config_class):
        default = overrides.get(field.name, field.default)
        _DEFINE[type(field.default)](field.name, default, field.metadata["help"])


def config_from_flags(config_class, **changes):
    """The ``Config`` that the command line asks for, with ``changes`` on top; a bad value ends the script."""
    values = {f.name: flags.FLAGS[f.name].value for f in dataclasses.fields(config_class)}
    try:
        return config_class(**{**values, **changes})
    except ValueError as error:
        raise SystemExit(f"{sys.argv[0]}: {error}") from error
