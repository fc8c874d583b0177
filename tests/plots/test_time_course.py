import pytest
from made_up import a_calm_row, a_row, texts, without

from scc_tf import plots

FIGURES = [plots.size_and_accuracy, plots.restoration_events, plots.network_and_step_time]


@pytest.mark.slow
@pytest.mark.parametrize("record", [a_row(), a_calm_row()])
@pytest.mark.parametrize("function", FIGURES)
def test_one_small_png_is_written_and_nothing_else_changes(rendered, function, record):
    rendered(function, record)


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
    ],
)
def test_a_malformed_record_leaves_nothing_behind(refused, function, record, message):
    refused(function, record, message)
