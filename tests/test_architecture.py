"""The package's shape, checked: imports point down, files stay small and documented."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "scc_tf"
ROWS = [  # bottom first: a module imports its own package and the rows below, nothing else
    {"quantization", "allowed", "atomic", "arguments", "backend", "extras", "arrays_file", "reports", "keras_private"},
    {"coding", "inference", "metrics", "pruning"},
    {"layers", "datasets", "tfmot", "batch_statistics", "classifier", "optimizer_state"},
    {"graph"},
    {"flops", "safety", "size", "surgery"},
    {"clustering"},
    {"training"},
    {"convertible"},
    {"conversion"},
    {"export"},
    {"size_report"},
    {"finishing"},
    {"callbacks", "plots"},
    {"evaluation", "compression", "inspection"},
    {"command_line", "protocols"},
]
RANK = {name: rank for rank, names in enumerate(ROWS) for name in names}
KERAS_FREE = {"coding", "metrics", "pruning"}
ONLY_IN = {"matplotlib": "plots", "tensorflow_model_optimization": "tfmot"}
JUNK_DRAWERS = re.compile(r"_?(utils?|helpers?|common|misc)")

FILES = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def part_of(file):
    """The module or package directly below `scc_tf` that a file belongs to."""
    return file.with_suffix("").parts[0]


def imports():
    """`(file, line, imported name)` of every import of the library."""
    for file, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((file, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                yield from ((file, node.lineno, f"{module}.{alias.name}") for alias in node.names)


def offenders(found):
    """`file:line: what` of each, to read in a failed assertion."""
    return [f"{file}:{line}: {what}" for file, line, what in found]


def test_every_module_has_a_row():
    assert {part_of(file) for file in FILES} - {"__init__"} <= set(RANK)


def test_imports_point_down():
    inner = [(file, line, name.split(".")) for file, line, name in imports() if name.startswith("scc_tf.")]
    wrong = [
        (file, line, f"{part_of(file)} imports {name[1]}")
        for file, line, name in inner
        if file != Path("__init__.py")  # it gathers the public names from every row
        and name[1] != part_of(file)
        and RANK[name[1]] >= RANK[part_of(file)]
    ]
    assert not offenders(wrong)
    assert not offenders(found for found in imports() if found[2].startswith("."))  # relative ones would go unseen


def test_each_dependency_is_imported_where_it_belongs():
    def misplaced(file, root):
        return (
            (file.parts[0] in KERAS_FREE and root in {"keras", "tensorflow", "tf_keras"})
            or ONLY_IN.get(root, part_of(file)) != part_of(file)
            or root in {"experiments", "lab", "benchmarks", "tests"}
        )

    assert not offenders(found for found in imports() if misplaced(found[0], found[2].partition(".")[0]))


def test_files_are_small_and_documented():
    assert not [str(file) for file in FILES if (PACKAGE / file).read_text().count("\n") > 400]
    assert not [str(file) for file, tree in FILES.items() if not ast.get_docstring(tree)]


def test_no_file_is_a_junk_drawer():
    assert not [str(file) for file in FILES if any(map(JUNK_DRAWERS.fullmatch, file.with_suffix("").parts))]


def test_the_library_neither_prints_nor_asserts():
    def is_wrong(node):
        called = node.func if isinstance(node, ast.Call) else None
        return isinstance(node, ast.Assert) or (isinstance(called, ast.Name) and called.id == "print")

    nodes = ((file, node) for file, tree in FILES.items() for node in ast.walk(tree))
    assert not offenders((file, node.lineno, type(node).__name__) for file, node in nodes if is_wrong(node))
