"""The package's shape, checked: imports point down, files stay small and documented."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "scc_tf"
ROWS = [  # bottom first: a module imports its own package and the rows below, nothing else
    {"quantization", "allowed", "atomic", "arguments", "arrays_file", "reports"},
    {"coding", "inference", "metrics", "pruning"},
    {"layers", "models", "datasets", "tfmot", "batch_statistics", "classifier", "optimizer_state"},
    {"masked_layers"},
    {"graph", "side_information", "finer_steps"},
    {"flops", "safety", "size", "surgery"},
    {"rate", "clustering", "dead_zone"},
    {"training"},
    {"convertible"},
    {"conversion"},
    {"export"},
    {"report", "smallest_file"},
    {"finishing"},
    {"callbacks", "plots"},
    {"evaluation"},
    {"pipelines"},
]
RANK = {name: rank for rank, names in enumerate(ROWS) for name in names}
KERAS_FREE = {"coding", "metrics", "pruning"}
ONLY_IN = {"matplotlib": "plots", "tensorflow_model_optimization": "tfmot"}
JUNK_DRAWERS = re.compile(r"_?(utils?|helpers?|common|misc)")

EVERY_FILE = sorted(PACKAGE.rglob("*.py"))
each_file = pytest.mark.parametrize("path", EVERY_FILE, ids=lambda p: str(p.relative_to(PACKAGE)))
each_module = pytest.mark.parametrize(  # the package's own __init__ gathers the public names from every row
    "path", [p for p in EVERY_FILE if p != PACKAGE / "__init__.py"], ids=lambda p: str(p.relative_to(PACKAGE))
)


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@each_module
def test_imports_point_down(path):
    here = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert here in RANK, f"{here} has no row: add it to ROWS"
    for name in imported_names(path):
        root, _, rest = name.partition(".")
        there = rest.split(".")[0]
        if root == "scc_tf":
            assert there == here or RANK[there] < RANK[here], f"{here} imports {there}"


@each_file
def test_each_dependency_is_imported_where_it_belongs(path):
    here = path.relative_to(PACKAGE)
    package = here.with_suffix("").parts[0]
    for name in imported_names(path):
        root = name.partition(".")[0]
        assert not (here.parts[0] in KERAS_FREE and root in {"keras", "tensorflow", "tf_keras"}), name
        assert ONLY_IN.get(root, package) == package, name
        assert root not in {"experiments", "benchmarks", "tests"}, name


@each_file
def test_file_is_small_and_documented(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    assert ast.get_docstring(ast.parse(text))


@each_file
def test_file_is_no_junk_drawer(path):
    assert not any(JUNK_DRAWERS.fullmatch(part) for part in path.relative_to(PACKAGE).with_suffix("").parts)


@each_file
def test_library_neither_prints_nor_asserts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}"
        called = node.func if isinstance(node, ast.Call) else None
        assert not (isinstance(called, ast.Name) and called.id == "print"), f"line {node.lineno}"
