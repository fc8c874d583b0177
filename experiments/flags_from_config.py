"""absl flags made from the fields of a pipeline's ``Config``: one place for every default and help text."""

import dataclasses
import os
import re
import shlex
import sys
from pathlib import Path

from absl import flags

_DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
_OF_THIS_MACHINE = re.compile(r".*_(dir|file)|out|verbose")  # where things lie here, and how much is said
_FILE = re.compile(r"model|network")  # likewise, unless it is a setting: the name of a network
_ONE_DNN = "TF_ENABLE_ONEDNN_OPTS"


def define_flags(config_class, leave_out=(), **overrides):
    """Define one flag per field but those to ``leave_out``; ``overrides`` change defaults."""
    for field in dataclasses.fields(config_class):
        if field.name not in leave_out:
            default = overrides.get(field.name, field.default)
            _DEFINE[field.type](field.name, default, field.metadata["help"])


def config_from_flags(config_class, **changes):
    """The ``Config`` that the command line asks for, with ``changes`` on top; a bad value ends the script."""
    names = {field.name for field in dataclasses.fields(config_class)}
    values = {f.name: f.value for f in flags.FLAGS.get_flags_for_module(__name__) if f.name in names}
    try:
        return config_class(**{**values, **changes})
    except ValueError as error:
        raise SystemExit(f"{sys.argv[0]}: {error}") from error


def command_line(script):
    """The command that repeats this run: the flags that differ from their defaults, but no path of this machine.

    A path that was taken back, as by ``--float_file=``, is none, and stays.

    oneDNN's kernels, which TensorFlow leaves off on processors without AVX-512 unless it is asked, round differently.

    Args:
        script: ``__name__`` of the script.
    """
    settings = flags.FLAGS.get_flags_for_module(__name__)
    own = [flag for flag in flags.FLAGS.get_flags_for_module(script) if not _FILE.fullmatch(flag.name)]
    defined = [*settings, *own]
    changed = [flag for flag in defined if flag.value != flag.default]
    told = [flag.serialize() for flag in changed if flag.value == "" or not _OF_THIS_MACHINE.fullmatch(flag.name)]
    one_dnn = [f"{_ONE_DNN}={os.environ[_ONE_DNN]}"] if _ONE_DNN in os.environ else []
    return shlex.join([*one_dnn, "python", f"experiments/{Path(sys.modules[script].__file__).name}", *told])
