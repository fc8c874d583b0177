import pytest
from lab import figures
from made_up import texts, without


def a_compression(**changes):
    """What `lab.deep_compression.run` records of LeNet-300-100, as far as it is drawn."""
    pruned = [(523_000, 1.47), (262_000, 1.49), (151_000, 1.52), (88_000, 1.58), (54_000, 1.66), (37_000, 1.83)]
    both = [(94_000, 1.48), (51_000, 1.51), (31_000, 1.54), (19_000, 1.60), (12_300, 1.68), (9_200, 1.89)]
    shared = [(34_000, 21.4), (52_000, 3.2), (66_000, 1.92), (85_000, 1.66), (99_000, 1.58), (131_000, 1.52)]
    stages = {"pruning": pruned, "both": both, "sharing": shared}
    whole = {"header_bytes": 10, "architecture_bytes": 118, "other_bytes": 590, "codebook_bytes": 96}
    return {
        "float": {"float32_bytes": 1_066_440, "test_error": 1.51},
        "final": {"stored_bytes": 9_150, "test_error": 1.71},
        "points": [
            {"stages": name, "stored_bytes": size, "test_error": error}
            for name, points in stages.items()
            for size, error in points
        ],
        "parts": {
            "range": {"code_bytes": 3_650, "index_bytes": 4_686, "table_bytes": 0, **whole},
            "huffman": {"code_bytes": 3_830, "index_bytes": 5_680, "table_bytes": 126, **whole},
        },
        **changes,
    }


def some_points(*stages):
    return [point for point in a_compression()["points"] if point["stages"] in stages]


def some_budgets(methods=("knapsack", "magnitude"), **changes):
    """What ``experiments/knapsack_neuron.py`` records, as far as it is drawn."""
    rows = [
        {"method": method, "stored_bytes": 0.99 * size, "test_error": 9_000 / size, "deviation": 0.2, **changes}
        for size in (4_000, 6_000, 12_000)
        for method in methods
    ]
    return {"summary": rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "record"),
    [
        (figures.compression_tradeoff, a_compression()),
        (figures.storage_breakdown, a_compression()),
        (figures.byte_budgets, some_budgets()),
        (figures.byte_budgets, some_budgets(["magnitude"], deviation=None)),
    ],
)
def test_one_small_png_is_written_and_nothing_else_changes(rendered, function, record):
    rendered(function, record)


def test_only_the_stages_that_are_there_are_explained(drawn):
    found = texts(drawn(figures.compression_tradeoff, a_compression()))
    assert {"pruning alone", "shared weights alone", "both", "final network", "float"} <= set(found)
    found = texts(drawn(figures.compression_tradeoff, a_compression(points=some_points("both"))))
    assert {"both", "final network", "float"} <= set(found)
    assert not {"pruning alone", "shared weights alone"} & set(found)


def test_points_of_one_stage_are_joined_by_size(drawn):
    points = some_points("sharing")
    figure = drawn(figures.compression_tradeoff, a_compression(points=points[::-1]))
    (line,) = [line for line in figure.axes[0].lines if line.get_marker() == "s"]
    assert line.get_xdata() == pytest.approx([100 * point["stored_bytes"] / 1_066_440 for point in points])
    assert line.get_ydata().tolist() == [point["test_error"] for point in points]


def test_the_final_network_is_in_the_picture(drawn):
    final = {"stored_bytes": 7_420, "test_error": 9.0}
    figure = drawn(figures.compression_tradeoff, a_compression(final=final, points=some_points("pruning")))
    (star,) = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    (x,), (y,) = star.get_data()
    assert figure.axes[0].get_xlim()[0] < x
    assert 0 < y < figure.axes[0].get_ylim()[1]


def test_networks_without_an_error_are_drawn(drawn):
    points = [{"stages": "both", "stored_bytes": 900, "test_error": 0.0}]
    perfect = {"float32_bytes": 9_000, "stored_bytes": 800, "test_error": 0.0}
    figure = drawn(figures.compression_tradeoff, a_compression(points=points, float=perfect, final=perfect))
    assert figure.axes[0].get_ylim()[1] > 0


def test_the_bytes_of_each_file_stand_beside_its_bar(drawn):
    figure = drawn(figures.storage_breakdown, a_compression())
    assert {"9,150 B", "10,450 B", "weights", "positions", "Huffman tables"} <= set(texts(figure))
    widths = {
        round(sum(p.get_width() for p in figure.axes[0].patches if p.get_y() < y < p.get_y() + 1)) for y in (0, 1)
    }
    assert widths == {9_150, 10_450}


def test_the_parts_of_one_file_are_enough(drawn):
    parts = without(a_compression(), "parts", "huffman")["parts"]
    found = texts(drawn(figures.storage_breakdown, a_compression(parts=parts)))
    assert "9,150 B" in found
    assert "Huffman tables" not in found


def test_each_method_is_a_line_over_the_bytes_of_its_files(drawn):
    axes = drawn(figures.byte_budgets, some_budgets()).axes[0]
    lines = [bars.lines[0] for bars in axes.containers]
    assert [bars.get_label() for bars in axes.containers] == ["knapsack", "magnitude"]
    assert lines[0].get_xdata().tolist() == pytest.approx([3.96, 5.94, 11.88])
    assert lines[0].get_ydata().tolist() == pytest.approx([2.25, 1.5, 0.75])


@pytest.mark.parametrize(
    ("function", "record", "message"),
    [
        (figures.compression_tradeoff, [], "Expected a record"),
        (figures.compression_tradeoff, without(a_compression(), "points"), "none of points"),
        (figures.compression_tradeoff, without(a_compression(), "final"), "none of final"),
        (figures.compression_tradeoff, a_compression(points=[]), "Received: none"),
        (figures.compression_tradeoff, without(a_compression(), "points", 3, "test_error"), "none of test_error"),
        (figures.compression_tradeoff, without(a_compression(), "points", 3, "stages"), "none of stages"),
        (figures.compression_tradeoff, without(a_compression(), "float", "float32_bytes"), "none of float32_bytes"),
        (figures.compression_tradeoff, without(a_compression(), "final", "stored_bytes"), "none of stored_bytes"),
        (
            figures.compression_tradeoff,
            a_compression(points=[{"stages": "svd", "stored_bytes": 9, "test_error": 1.0}]),
            r"Expected the stages pruning, sharing, both\. Received: svd",
        ),
        (
            figures.compression_tradeoff,
            a_compression(points=[{"stages": "both", "stored_bytes": 0, "test_error": 1.0}]),
            "positive",
        ),
        (figures.compression_tradeoff, a_compression(float={"float32_bytes": 0, "test_error": 1.0}), "positive"),
        (figures.storage_breakdown, without(a_compression(), "parts"), "none of parts"),
        (figures.storage_breakdown, a_compression(parts={}), "at least one file"),
        (figures.storage_breakdown, a_compression(parts=[1]), "at least one file"),
        (figures.storage_breakdown, a_compression(parts={"range": []}), "Expected a record"),
        (figures.storage_breakdown, without(a_compression(), "parts", "range", "code_bytes"), "none of code_bytes"),
        (figures.byte_budgets, {"summary": []}, "Received: none"),
        (figures.byte_budgets, without(some_budgets(), "summary", 1, "deviation"), "none of deviation"),
        (figures.byte_budgets, some_budgets(["random"]), r"Expected the methods .*magnitude\. Received: random"),
    ],
)
def test_a_malformed_record_leaves_nothing_behind(refused, function, record, message):
    refused(function, record, message)
