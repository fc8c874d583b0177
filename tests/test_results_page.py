"""The tables of `docs/results.md` are those of the records."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip(" *") for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "results.md").read_text().splitlines()
    if line.startswith("| ")
]


def record(name):
    return json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())


def spread(mean_and_deviation, places=0):
    mean, deviation = mean_and_deviation
    return f"{mean:,.{places}f}" + ("" if deviation is None else f" ± {deviation:,.{places}f}")


def with_cells(cells):
    """The rows that hold all of these cells; a cell may say more behind what is looked for."""
    return [row for row in ROWS if all(any(cell.startswith(wanted) for cell in row) for wanted in cells)]


def missing():
    """Every table row that a record asks for and the page does not have."""
    wanted = []
    for name in ("mnist_compare", "cifar10_compare"):
        for row, found in record(name)["summary"].items():
            bytes_of = spread(found["file B"]) if row != "float" else spread(found["test acc. %"], 2)
            wanted.append((row, spread(found["test acc. %"], 2), spread(found["safety acc. %"], 1), bytes_of))
    for name in ("record_lenet_300_100", "record_lenet_5", "record_lenet_5_45", "record_mnist_cnn", "record_smallest"):
        found = record(name)["summary"]
        wanted.append((spread(found["stored_bytes"]), spread(found["test_error"], 2)))
    for name in ("deep_lenet_300_100", "deep_lenet_5"):
        found = record(name)["summary"]
        wanted.append((spread(found["error"], 2), spread(found["stored_bytes"]), spread(found["huffman_bytes"])))
    for point in record("target_bytes")["points"]:
        wanted.append((f"{point['target_bytes']:,}", f"{point['stored_bytes']:,} ({point['error_percent']:+.1f} %)"))
    for name, found in record("export_networks")["networks"].items():
        sizes = (found["scc_bytes"], found["tflite_bytes"], found["tflite_float32_bytes"])
        wanted.append((name, *(f"{count:,}" for count in (*found["parameters"], *sizes))))
    for found in record("mnist_export")["files"].values():
        wanted.append((f"{found['bytes']:,}",))
    return [cells for cells in wanted if not with_cells(cells)]


def test_every_row_of_a_record_is_on_the_page():
    assert not missing()
