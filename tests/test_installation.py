"""What a user sees where something is missing, or where Keras runs on something else."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scc_tf
from scc_tf import extras, tfmot


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_is_one_clear_error(backend):
    done = subprocess.run(
        [sys.executable, "-c", "import scc_tf"],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": backend},
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: Expected Keras to run on TensorFlow") and last.endswith(f"Received: {backend}")


def test_a_missing_package_names_its_extra(monkeypatch):
    tfmot._library.cache_clear()
    tfmot._checked.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorflow_model_optimization"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    with pytest.raises(ModuleNotFoundError, match=r"package tensorflow_model_optimization\. .*scc_tf\[tfmot\]"):
        tfmot.ConstantSparsity(0.5, 0)


def test_figures_without_matplotlib_name_their_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("scc_tf.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"package matplotlib\. .*scc_tf\[plots\]"):
        importlib.import_module("scc_tf.plots")


def test_an_error_inside_a_package_is_its_own(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("import math\nmath.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttributeError, match="nothing"):
        extras.load("broken_package", "plots")


def test_a_model_of_tf_keras_is_told_the_way():
    model = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})()
    for function in (scc_tf.self_compress, scc_tf.add_masks, scc_tf.size_report):
        with pytest.raises(ValueError, match=r"of tf_keras \(save it as old\.h5, then take keras\.models\.load_model"):
            function(model)


def test_the_lowest_versions_are_those_that_are_tested():
    root = Path(__file__).resolve().parents[1]
    bounds = dict(re.findall(r"^    ([\w\-\[\]]+)>=([\d.]+)", (root / "setup.cfg").read_text(), re.M))
    tested = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (root / ".ci" / "lowest.txt").read_text(), re.M))
    apart = {"ai-edge-quantizer", "mkdocstrings[python]", "properdocs", "properdocs-theme-readthedocs", "ruff"}
    differing = {name for name in bounds.keys() - apart if not (tested.get(name, "") + ".").startswith(bounds[name])}
    assert not differing
