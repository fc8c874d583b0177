import copy

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.text import Text

from scc_tf import plots

ROW_FIGURES = [
    plots.size_and_accuracy,
    plots.bits_per_layer,
    plots.code_histograms,
    plots.restoration_events,
    plots.network_and_step_time,
]
KERNELS = {"conv1/kernel": 32, "conv2/kernel": 32, "conv3/kernel": 64, "conv4/kernel": 64, "head/kernel": 10}


def a_row(drops=(0.0, 0.01, 0.09, 0.004, 0.0), **changes):
    """What `scc_tf.pipelines.self_compression.compress` records, with a restoration wherever the drop passes 5 points."""
    sizes = [88_850.0 * 0.6**check for check in range(len(drops))]
    history = [
        {"step": 100 * i, "safety_accuracy": 0.985 - d, "safety_drop": d, "integer_bytes": size}
        for i, (d, size) in enumerate(zip(drops, sizes, strict=True))
    ]
    restored = {"conv2/kernel": 4, "conv3/kernel": 3}
    return {
        "test_accuracy": 0.99051,
        "size": {"stored_bytes": 0.8 * sizes[-1]},
        "network": [
            {"step": 100 * i, "parameters": 87_456.0 * 0.5**i, "channels": 202.0}
            | ({"step_ms": 70.0 * 0.6**i} if i else {})
            for i in range(len(drops) + 1)
        ],
        "history": history,
        "events": [
            {"step": c["step"], "safety_drop": c["safety_drop"], "restored": restored}
            for c in history
            if c["safety_drop"] > 0.05
        ],
        "reverted_to_step": 300,
        "bit_depths_before": {name: [8.0] * n for name, n in KERNELS.items()},
        "bit_depths": {name: [0.0] * (n // 2) + [2.5] * (n - n // 2) for name, n in KERNELS.items()},
        "code_counts": {name: [[-2, 3], [-1, 40], [0, 60 * n], [1, 44]] for name, n in KERNELS.items()},
        **changes,
    }


def a_calm_row():
    """As little as there can be: no event, no reversion, one check, one kernel, all of it dead."""
    small = a_row([0.0], bit_depths={"head/kernel": [0.0] * 10}, code_counts={"head/kernel": [[0, 5760]]})
    del small["events"], small["reverted_to_step"]
    return small


def a_study():
    points = [
        {
            "gamma": gamma,
            "row": row,
            "seed": seed,
            "drop_points": 70.0 * gamma * (row == "unsafe") + seed,
            "stored_bytes": 900.0 / gamma + 100 * seed,
            "reverted_to_step": 200 if row == "safe" and gamma == 1 else None,
        }
        for gamma in (0.01, 0.1, 1)
        for row in ("unsafe", "safe")
        for seed in (0, 1)
    ]
    return {"threshold_points": 5.0, "points": points}


def some_runs(rows=("float", "unsafe", "safe")):
    kinds = {
        "float": {"test_accuracy": 0.9926, "size": {"float32_bytes": 350_632}},
        "unsafe": {"test_accuracy": 0.9896, "size": {"stored_bytes": 7_700}},
        "safe": {"test_accuracy": 0.9899, "size": {"stored_bytes": 8_500}},
    }
    return [{"rows": {name: kinds[name] for name in rows}} for _ in range(2)]


def a_compression(**changes):
    """What `scc_tf.pipelines.deep_compression.run` records of LeNet-300-100, as far as it is drawn."""
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


def some_budgets(methods=("knapsack", "magnitude"), **changes):
    """What ``experiments/knapsack_neuron.py`` records, as far as it is drawn."""
    rows = [
        {"method": method, "stored_bytes": 0.99 * size, "test_error": 9_000 / size, "deviation": 0.2, **changes}
        for size in (4_000, 6_000, 12_000)
        for method in methods
    ]
    return {"summary": rows}


def some_targets(**changes):
    """What `experiments/target_bytes.py` records."""
    points = []
    for target in (1000, 20_000):
        sizes = [40_000.0 * (target / 40_000) ** (i / 4) for i in range(5)]
        history = [{"step": 100 * i, "stored_bytes": s, "gamma": 0.1 * 2**i} for i, s in enumerate(sizes)]
        points.append({"target_bytes": target, "stored_bytes": 0.99 * target, "history": history, **changes})
    return {"points": points}


def without(record, *keys):
    """A copy of the record in which the item at the end of the path ``keys`` is missing."""
    record = copy.deepcopy(record)
    place = record
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return record


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Calls a figure without rendering it; returns what was to be rendered."""
    figures = []

    def keep(figure, path, **_):
        figures.append(figure)
        path.write_bytes(b"")

    monkeypatch.setattr(Figure, "savefig", keep)

    def draw(function, record):
        function(record, tmp_path / "figure.png")
        return figures[-1]

    return draw


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "record"),
    [
        *((function, a_row()) for function in ROW_FIGURES),
        *((function, a_calm_row()) for function in ROW_FIGURES),
        (plots.collapse_study, a_study()),
        (plots.compare_rows, some_runs()),
        (plots.compression_tradeoff, a_compression()),
        (plots.storage_breakdown, a_compression()),
        (plots.byte_budgets, some_budgets()),
        (plots.byte_budgets, some_budgets(["magnitude"], deviation=None)),
        (plots.target_sizes, some_targets()),
    ],
)
def test_one_small_png_is_written_and_nothing_else_changes(function, record, tmp_path):
    figures, style, before = pyplot.get_fignums(), dict(pyplot.rcParams), copy.deepcopy(record)
    path = tmp_path / "new folder" / "figure.png"
    function(record, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 200_000
    assert list(path.parent.iterdir()) == [path]
    assert record == before
    assert pyplot.get_fignums() == figures
    assert dict(pyplot.rcParams) == style


def test_the_title_gives_accuracy_and_bytes(drawn):
    figure = drawn(plots.size_and_accuracy, a_row(size={"stored_bytes": 8663}))
    assert "99.05 % on test in a file of 8,663 bytes" in texts(figure)
    assert {"integer bytes (kB)", "safety accuracy (%)", "training step"} <= set(texts(figure))


@pytest.mark.slow
def test_bytes_are_on_a_log_scale_only_beyond_a_decade(drawn):
    wide = drawn(plots.size_and_accuracy, a_row([0.0] * 6))  # a factor of 12.9
    narrow = drawn(plots.size_and_accuracy, a_row([0.0] * 3))  # a factor of 2.8
    assert [figure.axes[0].get_yscale() for figure in (wide, narrow)] == ["log", "linear"]


def test_the_time_of_the_first_and_the_last_steps_is_the_title(drawn):
    figure = drawn(plots.network_and_step_time, a_row([0.0] * 2))
    assert "A step takes 42 ms at first and 25 ms in the end" in texts(figure)
    assert {"parameters (thousands)", "time per step (ms, median)"} <= set(texts(figure))


@pytest.mark.parametrize("function", [plots.size_and_accuracy, plots.restoration_events])
@pytest.mark.parametrize("step", [0, 300, 400])
def test_a_reversion_is_a_labelled_line(drawn, function, step):
    assert f"went back to step {step}" in texts(drawn(function, a_row(reverted_to_step=step)))
    assert not any("went back" in text for text in texts(drawn(function, a_row(reverted_to_step=None))))


@pytest.mark.parametrize(
    ("drops", "changes", "title"),
    [
        ((0.0, 0.09, 0.0), {}, "1 restoration, 7 channels revived"),
        ((0.0, 0.09, 0.08), {}, "2 restorations, 14 channels revived"),
        ((0.0, 0.09, 0.08), {"events": []}, "No restoration was made"),
        ((0.0, 0.02, 0.0), {}, "No restoration was needed"),
        ((0.0, 0.02, 0.0), {"threshold_points": 1.0}, "No restoration was made"),
        ((0.0, 0.02, 0.0), {"threshold_points": 5.0}, "No restoration was needed"),
    ],
)
def test_the_restorations_are_summed_up(drawn, drops, changes, title):
    figure = drawn(plots.restoration_events, a_row(drops, **changes))
    assert title in texts(figure)
    assert any("tolerated" in text for text in texts(figure)) == ("threshold_points" in changes)


def test_an_event_that_found_nothing_dead_counts_none(drawn):
    events = [{"step": 200, "safety_drop": 0.09, "restored": {}}]
    assert "1 restoration, 0 channels revived" in texts(drawn(plots.restoration_events, a_row(events=events)))


def test_dead_channels_are_counted(drawn):
    found = texts(drawn(plots.bits_per_layer, a_row()))
    assert {"conv1", "16 of 32 dead", "head", "5 of 10 dead", "dead, 0 bits: 101 of 202 channels"} <= set(found)


def test_a_kernel_that_is_not_called_kernel_keeps_its_name(drawn):
    counts = {"block/depthwise_kernel": [[0, 1], [1, 3]], "block/kernel": [[1, 2]]}
    found = texts(drawn(plots.code_histograms, a_row(code_counts=counts)))
    assert {"block/depthwise_kernel", "25.0 % zeros", "block", "0.0 % zeros"} <= set(found)


@pytest.mark.slow
def test_the_deepest_network_still_makes_a_small_file(tmp_path):
    counts = {f"stage1_block{i}_conv1/kernel": [[code, 1 + abs(code)] for code in range(-60, 61)] for i in range(20)}
    plots.code_histograms(a_row(code_counts=counts), tmp_path / "codes.png")
    assert (tmp_path / "codes.png").stat().st_size < 200_000


def test_hollow_dots_are_explained_where_there_are_any(drawn):
    study = a_study()
    assert "went back to a safe step" in texts(drawn(plots.collapse_study, study))
    study["points"] = [point for point in study["points"] if point["row"] == "unsafe"]
    found = texts(drawn(plots.collapse_study, study))
    assert "unsafe" in found
    assert not {"safe", "went back to a safe step"} & set(found)


def test_only_the_rows_that_are_there_are_compared(drawn):
    found = texts(drawn(plots.compare_rows, some_runs()))
    assert {"float: 99.26 % in 351 kB", "safe: 98.99 % in 8.5 kB, 41 times less"} <= set(found)
    assert "safe: 98.99 % in 8.5 kB" in texts(drawn(plots.compare_rows, some_runs(["safe"])))


def some_points(*stages):
    return [point for point in a_compression()["points"] if point["stages"] in stages]


def test_only_the_stages_that_are_there_are_explained(drawn):
    found = texts(drawn(plots.compression_tradeoff, a_compression()))
    assert {"pruning alone", "shared weights alone", "both", "final network", "float"} <= set(found)
    found = texts(drawn(plots.compression_tradeoff, a_compression(points=some_points("both"))))
    assert {"both", "final network", "float"} <= set(found)
    assert not {"pruning alone", "shared weights alone"} & set(found)


def test_points_of_one_stage_are_joined_by_size(drawn):
    points = some_points("sharing")
    figure = drawn(plots.compression_tradeoff, a_compression(points=points[::-1]))
    (line,) = [line for line in figure.axes[0].lines if line.get_marker() == "s"]
    assert line.get_xdata() == pytest.approx([100 * point["stored_bytes"] / 1_066_440 for point in points])
    assert line.get_ydata().tolist() == [point["test_error"] for point in points]


def test_the_final_network_is_in_the_picture(drawn):
    final = {"stored_bytes": 7_420, "test_error": 9.0}
    figure = drawn(plots.compression_tradeoff, a_compression(final=final, points=some_points("pruning")))
    (star,) = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    (x,), (y,) = star.get_data()
    assert figure.axes[0].get_xlim()[0] < x
    assert 0 < y < figure.axes[0].get_ylim()[1]


def test_networks_without_an_error_are_drawn(drawn):
    points = [{"stages": "both", "stored_bytes": 900, "test_error": 0.0}]
    perfect = {"float32_bytes": 9_000, "stored_bytes": 800, "test_error": 0.0}
    figure = drawn(plots.compression_tradeoff, a_compression(points=points, float=perfect, final=perfect))
    assert figure.axes[0].get_ylim()[1] > 0


def test_the_bytes_of_each_file_stand_beside_its_bar(drawn):
    figure = drawn(plots.storage_breakdown, a_compression())
    assert {"9,150 B", "10,450 B", "weights", "positions", "Huffman tables"} <= set(texts(figure))
    widths = {
        round(sum(p.get_width() for p in figure.axes[0].patches if p.get_y() < y < p.get_y() + 1)) for y in (0, 1)
    }
    assert widths == {9_150, 10_450}


def test_the_parts_of_one_file_are_enough(drawn):
    parts = without(a_compression(), "parts", "huffman")["parts"]
    found = texts(drawn(plots.storage_breakdown, a_compression(parts=parts)))
    assert "9,150 B" in found
    assert "Huffman tables" not in found


def test_each_method_is_a_line_over_the_bytes_of_its_files(drawn):
    axes = drawn(plots.byte_budgets, some_budgets()).axes[0]
    lines = [bars.lines[0] for bars in axes.containers]
    assert [bars.get_label() for bars in axes.containers] == ["knapsack", "magnitude"]
    assert lines[0].get_xdata().tolist() == pytest.approx([3.96, 5.94, 11.88])
    assert lines[0].get_ydata().tolist() == pytest.approx([2.25, 1.5, 0.75])


def test_each_target_is_dashed_and_its_file_a_dot(drawn):
    above, below = drawn(plots.target_sizes, some_targets()).axes
    dashed = [line.get_ydata()[0] for line in above.lines[::3]]
    dots = [line.get_ydata()[0] for line in above.lines[2::3]]
    assert (dashed, dots) == (pytest.approx([1.0, 20.0]), pytest.approx([0.99, 19.8]))
    assert {axes.get_yscale() for axes in (above, below)} == {"log"}
    assert [text.get_text() for text in above.texts] == ["-1.0%", "-1.0%"]
    assert below.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])


@pytest.mark.parametrize(
    ("function", "record", "message"),
    [
        (plots.size_and_accuracy, [], "Expected a record"),
        (plots.size_and_accuracy, without(a_row(), "size", "stored_bytes"), "none of stored_bytes"),
        (plots.size_and_accuracy, without(a_row(), "history", 1, "safety_accuracy"), "none of safety_accuracy"),
        (plots.size_and_accuracy, a_row(history=[]), "Received: none"),
        (plots.size_and_accuracy, a_row(test_accuracy=float("nan")), "test_accuracy"),
        (plots.size_and_accuracy, a_row([0.0, float("nan")]), "safety_accuracy"),
        (plots.size_and_accuracy, a_row(events=[{}]), "none of step"),
        (plots.restoration_events, without(a_row(), "history"), "none of history"),
        (plots.restoration_events, without(a_row(), "events", 0, "restored"), "none of restored"),
        (plots.network_and_step_time, without(a_row(), "network"), "none of network"),
        (plots.network_and_step_time, without(a_row(), "network", 1, "parameters"), "none of parameters"),
        (plots.network_and_step_time, a_row(network=[{"step": 0, "parameters": 9.0}]), "Received: none"),
        (plots.bits_per_layer, without(a_row(), "bit_depths"), "none of bit_depths"),
        (plots.bits_per_layer, without(a_row(), "bit_depths_before", "head/kernel"), "none of head/kernel"),
        (plots.bits_per_layer, without(a_row(), "bit_depths", "head/kernel", 0), "10 before, 9 after"),
        (plots.bits_per_layer, a_row(bit_depths={"head/kernel": [float("nan")] * 10}), "finite"),
        (plots.code_histograms, without(a_row(), "code_counts"), "none of code_counts"),
        (plots.code_histograms, a_row(code_counts={}), "none empty"),
        (plots.code_histograms, a_row(code_counts={"head/kernel": []}), "none empty"),
        (plots.code_histograms, a_row(code_counts={"head/kernel": [[0, 0]]}), "to occur"),
        (plots.collapse_study, without(a_study(), "threshold_points"), "none of threshold_points"),
        (plots.collapse_study, {**a_study(), "points": []}, "Received: none"),
        (plots.collapse_study, {**a_study(), "points": [{**a_study()["points"][0], "gamma": 0}]}, "gamma > 0"),
        (plots.collapse_study, {**a_study(), "points": [{**a_study()["points"][0], "row": "float"}]}, "'float'"),
        (plots.compression_tradeoff, [], "Expected a record"),
        (plots.compression_tradeoff, without(a_compression(), "points"), "none of points"),
        (plots.compression_tradeoff, without(a_compression(), "final"), "none of final"),
        (plots.compression_tradeoff, a_compression(points=[]), "Received: none"),
        (plots.compression_tradeoff, without(a_compression(), "points", 3, "test_error"), "none of test_error"),
        (plots.compression_tradeoff, without(a_compression(), "points", 3, "stages"), "none of stages"),
        (plots.compression_tradeoff, without(a_compression(), "float", "float32_bytes"), "none of float32_bytes"),
        (plots.compression_tradeoff, without(a_compression(), "final", "stored_bytes"), "none of stored_bytes"),
        (
            plots.compression_tradeoff,
            a_compression(points=[{"stages": "svd", "stored_bytes": 9, "test_error": 1.0}]),
            r"Expected the stages pruning, sharing, both\. Received: svd",
        ),
        (
            plots.compression_tradeoff,
            a_compression(points=[{"stages": "both", "stored_bytes": 0, "test_error": 1.0}]),
            "positive",
        ),
        (plots.compression_tradeoff, a_compression(float={"float32_bytes": 0, "test_error": 1.0}), "positive"),
        (plots.storage_breakdown, without(a_compression(), "parts"), "none of parts"),
        (plots.storage_breakdown, a_compression(parts={}), "at least one file"),
        (plots.storage_breakdown, a_compression(parts=[1]), "at least one file"),
        (plots.storage_breakdown, a_compression(parts={"range": []}), "Expected a record"),
        (plots.storage_breakdown, without(a_compression(), "parts", "range", "code_bytes"), "none of code_bytes"),
        (plots.target_sizes, {"points": []}, "Received: none"),
        (plots.target_sizes, without(some_targets(), "points", 1, "history", 0, "gamma"), "none of gamma"),
        (plots.target_sizes, some_targets(stored_bytes=0), "positive bytes"),
        (plots.byte_budgets, {"summary": []}, "Received: none"),
        (plots.byte_budgets, without(some_budgets(), "summary", 1, "deviation"), "none of deviation"),
        (plots.byte_budgets, some_budgets(["random"]), r"Expected the methods .*magnitude\. Received: random"),
        (plots.compare_rows, [], "0 records"),
        (plots.compare_rows, [{"rows": {}}], "1 records"),
        (plots.compare_rows, without(some_runs(), 0, "rows", "safe", "size", "stored_bytes"), "none of stored_bytes"),
    ],
)
def test_a_malformed_record_leaves_nothing_behind(function, record, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        function(record, tmp_path / "new folder" / "figure.png")
    assert not list(tmp_path.iterdir())
