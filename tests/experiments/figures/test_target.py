import pytest
from lab import figures
from made_up import without


def some_targets(**changes):
    """What `experiments/target_bytes.py` records."""
    points = []
    for target in (1000, 20_000):
        sizes = [40_000.0 * (target / 40_000) ** (i / 4) for i in range(5)]
        history = [{"step": 100 * i, "stored_bytes": s, "gamma": 0.1 * 2**i} for i, s in enumerate(sizes)]
        points.append({"target_bytes": target, "stored_bytes": 0.99 * target, "history": history, **changes})
    return {"points": points}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "record"),
    [
        (figures.target_sizes, some_targets()),
    ],
)
def test_one_small_png_is_written_and_nothing_else_changes(rendered, function, record):
    rendered(function, record)


def test_each_target_is_dashed_and_its_file_a_dot(drawn):
    above, below = drawn(figures.target_sizes, some_targets()).axes
    dashed = [line.get_ydata()[0] for line in above.lines[::3]]
    dots = [line.get_ydata()[0] for line in above.lines[2::3]]
    assert (dashed, dots) == (pytest.approx([1.0, 20.0]), pytest.approx([0.99, 19.8]))
    assert {axes.get_yscale() for axes in (above, below)} == {"log"}
    assert [text.get_text() for text in above.texts] == ["-1.0%", "-1.0%"]
    assert below.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])


@pytest.mark.parametrize(
    ("function", "record", "message"),
    [
        (figures.target_sizes, {"points": []}, "Received: none"),
        (figures.target_sizes, without(some_targets(), "points", 1, "history", 0, "gamma"), "none of gamma"),
        (figures.target_sizes, some_targets(stored_bytes=0), "positive bytes"),
    ],
)
def test_a_malformed_record_leaves_nothing_behind(refused, function, record, message):
    refused(function, record, message)
