import keras
import numpy as np
import pytest
from lab import models
from lab.deep_compression import COLUMNS, PAPER
from lab.deep_compression.rates import huffman_parts, layer_rates

import scc_tf
from scc_tf.export.packed import packed_report

# rates ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_layers():
    """Kernels of 3 x 2 and 2 x 30 with 2 and 3 clusters."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            scc_tf.layers.WeightSharingDense(2, clusters=2, name="tiny"),
            scc_tf.layers.WeightSharingDense(30, clusters=3, name="gaps"),
        ]
    )
    model.get_layer("tiny").share([-1.0, 0.5], [[0, 2], [0, 0], [1, 0]])
    indices = np.zeros(60, int)
    indices[[0, 1, 2, 3, 20, 59]] = 1, 2, 3, 3, 3, 1
    model.get_layer("gaps").share([-1.0, 0.5, 1.0], indices.reshape(2, 30))
    return model


def test_rates_of_a_tiny_layer_by_hand(two_layers):
    file = packed_report(two_layers)
    row = layer_rates(two_layers, {"tiny": 12, "gaps": 60}, file)["tiny"]
    own = file.kernels["tiny"]
    # gaps 1 and 2, entries 2 and 1: two Huffman codes of a bit each, in a byte
    assert row == {
        "clusters": 2,
        "weights": 12,
        "kept": pytest.approx(100 * 2 / 12),
        "weight_bits": 2,  # two clusters and the filler
        "weight_bits_huffman": 4.0,
        "index_bits": 3,
        "index_bits_huffman": 4.0,
        "rate": pytest.approx(100 * (2 * (2 + 3) + 2 * 32) / (12 * 32)),
        "rate_huffman": pytest.approx(100 * (8 + 8 + 80 + own["codebook"]) / (12 * 32)),
    }


def test_fillers_are_stored_entries(two_layers):
    row = layer_rates(two_layers, {"tiny": 12, "gaps": 60}, packed_report(two_layers))["gaps"]
    zeros = [0, 0, 0, 0, 16, 38]  # before each entry
    entries = sum(1 + gap // 2 ** row["index_bits"] for gap in zeros)
    assert row["kept"] == 10.0
    assert row["weight_bits"] == 2
    assert row["rate"] == pytest.approx(100 * (entries * (2 + row["index_bits"]) + 3 * 32) / (60 * 32))


def test_rates_sum_to_the_bytes_of_huffman_codes_that_were_written(two_layers):
    file = packed_report(two_layers)
    rates, parts = layer_rates(two_layers, {"tiny": 12, "gaps": 60}, file), huffman_parts(two_layers, file)
    total = rates.pop("total")
    bits = [row["rate_huffman"] / 100 * 32 * row["weights"] for row in rates.values()]
    kernel_bytes = sum(parts[f"{part}_bytes"] for part in ("code", "index", "codebook", "table"))
    assert sum(bits) / 8 == pytest.approx(kernel_bytes, abs=1)  # of which the codebook is rounded
    assert parts["stored_bytes"] == sum(size for part, size in parts.items() if part.endswith("_bytes")) / 2
    assert total["rate_huffman"] == pytest.approx(100 * sum(bits) / (32 * 72))
    assert total["kept"] == pytest.approx(100 * 8 / 72)
    assert (total["weights"], set(total)) == (72, {"weights", "kept", "rate", "rate_huffman"})


# paper ---------------------------------------------------------------------------------------------------------------

TABLE_2 = """
dense1  8  6 4.4  5 3.7   3.1  2.32
dense2  9  6 4.4  5 4.3   3.8  3.04
head   26  6 4.3  5 3.2  15.7 12.70
"""
TABLE_3 = """
conv1  66  8 7.2  5 1.5  78.5 67.45
conv2  12  8 7.2  5 3.9   6.0  5.28
dense1  8  5 4.5  5 4.5   2.7  2.45
head   19  5 5.2  5 3.7   6.9  6.13
"""


@pytest.mark.parametrize(("name", "table"), [("lenet_300_100", TABLE_2), ("lenet_5", TABLE_3)])
def test_the_rows_are_those_of_the_paper(name, table):
    rows = {line.split()[0]: tuple(map(float, line.split()[1:])) for line in table.strip().splitlines()}
    assert PAPER[name]["layers"] == rows
    assert {len(row) for row in rows.values()} == {len(COLUMNS)}
    kernels = [layer.name for layer in getattr(models, name)().layers if layer.weights]
    assert list(rows) == kernels


@pytest.mark.parametrize(
    ("name", "errors", "kilobytes", "ratio", "total"),
    [("lenet_300_100", (1.64, 1.58), 27, 40, (8, 3.1, 2.49)), ("lenet_5", (0.80, 0.74), 44, 39, (8, 3.05, 2.55))],
)
def test_the_totals_are_those_of_the_paper(name, errors, kilobytes, ratio, total):
    paper = PAPER[name]
    assert (paper["float_error"], paper["error"]) == errors
    assert (paper["bytes"], paper["ratio"]) == (1000 * kilobytes, ratio)
    assert paper["total"] == dict(zip(("kept", "rate", "rate_huffman"), total, strict=True))


@pytest.mark.parametrize(
    ("name", "layer", "weights", "expected"),
    [
        ("lenet_300_100", "head", 1_000, 15.34),
        ("lenet_5", "conv1", 500, 78.01),
        ("lenet_5", "conv2", 25_000, 5.90),
        ("lenet_5", "head", 5_000, 6.58),
    ],
)
def test_the_rates_of_the_paper_are_entries_and_a_codebook(name, layer, weights, expected):
    row = dict(zip(COLUMNS, PAPER[name]["layers"][layer], strict=True))
    entries = row["kept"] * (row["weight_bits"] + row["index_bits"]) / 32
    rate = entries + 100 * 2 ** row["weight_bits"] * 32 / (32 * weights)
    assert rate == pytest.approx(expected, abs=0.005)
    assert 0 < row["rate"] - rate < 0.05 * row["rate"]  # the rest is fillers
