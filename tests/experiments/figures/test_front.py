import pytest
from lab import figures
from made_up import texts, without


def a_network(**changes):
    """What ``experiments/size_accuracy_front.py`` records of one network, its points in the order of their trainings."""
    points = [(8_400, 1.9), (31_000, 1.52), (4_100, 2.7), (15_500, 1.6)]
    records = [(9_300, 1.55), (9_700, 1.49)]
    return {
        "points": [{"stored_bytes": size, "test_error": error} for size, error in points],
        "published": [("a large one", 27_000, 1.58), ("a small one", 6_900, 2.2), ("one between", 12_300, 1.85)],
        "records": [{"stored_bytes": size, "test_error": error} for size, error in records],
        **changes,
    }


def a_front(**networks):
    return {"networks": networks or {"LeNet-300-100": a_network(), "LeNet-5": a_network(records=[])}}


def a_point(size=9_000, error=1.5):
    return [{"stored_bytes": size, "test_error": error}]


def drawn_as(axes, marker):
    """The points of the one line that has this marker, as ``[(bytes, error), …]``."""
    (line,) = [line for line in axes.lines if line.get_marker() == marker]
    return list(zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("record", [a_front(), a_front(net=a_network(points=a_point(), published=[]))])
def test_one_small_png_is_written_and_nothing_else_changes(rendered, record):
    rendered(figures.size_accuracy_front, record)


def test_each_network_has_a_panel(drawn):
    figure = drawn(figures.size_accuracy_front, a_front())
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["LeNet-300-100", "LeNet-5"]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    assert {"test error (%)", "stored bytes"} <= set(texts(figure))


def test_points_are_joined_by_size(drawn):
    (axes,) = drawn(figures.size_accuracy_front, a_front(net=a_network())).axes
    assert drawn_as(axes, "o") == [(4_100, 2.7), (8_400, 1.9), (15_500, 1.6), (31_000, 1.52)]


def test_published_points_are_numbered_by_size_and_named_in_the_legend(drawn):
    network = a_network()
    (axes,) = drawn(figures.size_accuracy_front, a_front(net=network)).axes
    ranked = sorted(network["published"], key=lambda row: row[1])
    places = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "D"]
    assert places == [(size, error) for _, size, error in ranked]
    assert [(text.get_text(), *text.xy) for text in axes.texts] == [
        (str(number), size, error) for number, (_, size, error) in enumerate(ranked, start=1)
    ]
    named = {line.get_marker(): line.get_label() for line in axes.get_legend().get_lines()}
    assert [named[f"${number}$"] for number in (1, 2, 3)] == [words for words, *_ in ranked]


def test_stars_only_where_there_are_records(drawn):
    with_records, without_records = drawn(figures.size_accuracy_front, a_front()).axes
    assert drawn_as(with_records, "*") == [(9_300, 1.55), (9_700, 1.49)]
    assert "*" not in {line.get_marker() for line in without_records.lines}
    legends = [{text.get_text() for text in axes.get_legend().get_texts()} for axes in (with_records, without_records)]
    assert legends[0] - legends[1] == {"scc_tf, in full"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "Expected a record"),
        ({}, "none of networks"),
        ({"networks": {}}, "at least one network"),
        *((a_front(net=without(a_network(), name)), f"none of {name}") for name in ("points", "published", "records")),
        (a_front(net=without(a_network(), "points", 1, "test_error")), "none of test_error"),
        (a_front(net=without(a_network(), "records", 1, "stored_bytes")), "none of stored_bytes"),
        (a_front(net=a_network(points=[])), "Received: none"),
        (a_front(good=a_network(), bad=a_network(points=[])), "Received: none"),
        (a_front(net=a_network(points=a_point(error=float("nan")))), "test_error"),
        (a_front(net=a_network(records=a_point(error=float("inf")))), "test_error"),
        (a_front(net=a_network(points=a_point(0))), "positive bytes"),
        (a_front(net=a_network(points=[*a_point(), *a_point(-1)])), "positive bytes"),
        (a_front(net=a_network(records=a_point(0))), r"positive bytes\. Received: 0"),
        (a_front(net=a_network(published=[("nothing", 0, 1.0)])), r"positive bytes\. Received: 0"),
        (a_front(net=a_network(published=[("unknown", 9_000, float("nan"))])), "finite numbers"),
    ],
)
def test_a_malformed_record_leaves_nothing_behind(refused, record, message):
    refused(figures.size_accuracy_front, record, message)
