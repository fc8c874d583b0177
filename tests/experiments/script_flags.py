"""Import an experiment as a module, and take its flags back afterwards."""

import contextlib
import importlib
import sys
from pathlib import Path

import pytest
from absl import flags

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def parse(script, *arguments):
    """Give an experiment, ``script``, its command line."""
    flags.FLAGS.unparse_flags()
    flags.FLAGS([script, *arguments])


@contextlib.contextmanager
def imported(name, monkeypatch):
    """The module ``experiments/<name>.py``."""
    before = set(flags.FLAGS)
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    names = (name, "flags_from_config")
    for module in names:
        monkeypatch.delitem(sys.modules, module, raising=False)
    try:
        yield importlib.import_module(name)
    finally:
        flags.FLAGS.unparse_flags()
        for flag in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, flag)
        for module in names:
            sys.modules.pop(module, None)


def script_fixture(name):
    """A fixture: the module ``experiments/<name>.py``."""

    @pytest.fixture
    def script(monkeypatch):
        with imported(name, monkeypatch) as module:
            yield module

    return script
