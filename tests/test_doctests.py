"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import scc_tf

MODULES = ["scc_tf", *(module.name for module in pkgutil.walk_packages(scc_tf.__path__, "scc_tf."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
