"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import keras
import lab
import pytest

import scc_tf


def failures(name):
    """How many lines of a module's examples are not true."""
    module = importlib.import_module(name)
    keras.utils.set_random_seed(0)
    keras.utils.clear_session(free_memory=False)  # layers are named as in a new session
    return doctest.testmod(module).failed


@pytest.mark.slow
def test_examples():
    packages = {package.__name__: package.__path__ for package in (scc_tf, lab)}
    names = ["scc_tf", *(m.name for name, path in packages.items() for m in pkgutil.walk_packages(path, f"{name}."))]
    assert not {name for name in names if failures(name)}
