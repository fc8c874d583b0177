import pytest
from made_up import a_calm_row, a_row, texts, without

from scc_tf import plots

FIGURES = [plots.bits_per_layer, plots.code_histograms]


@pytest.mark.slow
@pytest.mark.parametrize("record", [a_row(), a_calm_row()])
@pytest.mark.parametrize("function", FIGURES)
def test_one_small_png_is_written_and_nothing_else_changes(rendered, function, record):
    rendered(function, record)


def test_dead_channels_are_counted(drawn):
    found = texts(drawn(plots.bits_per_layer, a_row()))
    assert {"conv1", "16 of 32 dead", "head", "5 of 10 dead", "dead, 0 bits: 101 of 202 channels"} <= set(found)


def test_a_kernel_that_is_not_called_kernel_keeps_its_name(drawn):
    counts = {"block/depthwise_kernel": [[0, 1], [1, 3]], "block/kernel": [[1, 2]]}
    found = texts(drawn(plots.code_histograms, a_row(code_counts=counts)))
    assert {"block/depthwise_kernel", "25.0 % zeros", "block", "0.0 % zeros"} <= set(found)


@pytest.mark.slow
def test_the_deepest_network_still_makes_a_small_file(rendered):
    counts = {f"stage1_block{i}_conv1/kernel": [[code, 1 + abs(code)] for code in range(-60, 61)] for i in range(20)}
    rendered(plots.code_histograms, a_row(code_counts=counts))


@pytest.mark.parametrize(
    ("function", "record", "message"),
    [
        (plots.bits_per_layer, without(a_row(), "bit_depths"), "none of bit_depths"),
        (plots.bits_per_layer, without(a_row(), "bit_depths_before", "head/kernel"), "none of head/kernel"),
        (plots.bits_per_layer, without(a_row(), "bit_depths", "head/kernel", 0), "10 before, 9 after"),
        (plots.bits_per_layer, a_row(bit_depths={"head/kernel": [float("nan")] * 10}), "finite"),
        (plots.code_histograms, without(a_row(), "code_counts"), "none of code_counts"),
        (plots.code_histograms, a_row(code_counts={}), "none empty"),
        (plots.code_histograms, a_row(code_counts={"head/kernel": []}), "none empty"),
        (plots.code_histograms, a_row(code_counts={"head/kernel": [[0, 0]]}), "to occur"),
    ],
)
def test_a_malformed_record_leaves_nothing_behind(refused, function, record, message):
    refused(function, record, message)
