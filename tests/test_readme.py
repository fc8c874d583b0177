"""The README's promises that a machine can check: its example runs, its numbers are those of the records."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = [  # a row each: the float network, the record of the small one, the way to its bytes, its TFLite file
    ("mnist_cnn", "mnist_compare", ("safe", "file B"), "mnist_safe.tflite"),
    ("mnist_cnn", "record_smallest", ("stored_bytes",), None),
    ("lenet_300_100", "record_lenet_300_100", ("stored_bytes",), None),
    ("lenet_300_100", "deep_lenet_300_100", ("stored_bytes",), None),
    ("lenet_5", "record_lenet_5", ("stored_bytes",), None),
    ("resnet20", "cifar10_compare", ("safe", "file B"), "cifar10_safe.tflite"),
]


def record(name):
    return json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())


def test_it_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.slow
def test_the_example_runs(capsys, tmp_path, monkeypatch, digits_network):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in example.splitlines() if line]) == 5
    exec(compile(example, "README.md", "exec"), digits_network)
    assert "within the target of 50,000 bytes" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"mine.scc", "mine.tflite"}
    assert digits_network["small"].model.predict(digits_network["x_train"][:3], verbose=0).shape == (3, 10)


@pytest.mark.parametrize(("place", "result"), enumerate(RESULTS))
def test_its_results_are_those_of_the_records(place, result):
    network, name, way, tflite = result
    packed, small = record("gzip_sizes"), record(name)["summary"]
    for key in way:
        small = small[key]
    before, mean = packed["float32"][network], small[0]
    row = README.partition("<!-- results -->")[2].strip().splitlines()[2 + place]
    cells = [cell.strip(" *") for cell in row.strip("|").split("|")]
    assert cells[1] == f"{before['bytes']:,} ({before['gzip_bytes']:,})"
    assert cells[2] == f"{mean:,.0f}"
    assert cells[3] == ("{bytes:,} ({gzip_bytes:,})".format(**packed["files"][tflite]) if tflite else "")
    assert cells[4] == f"{before['bytes'] / mean:,.0f} ({before['gzip_bytes'] / mean:,.0f})"
