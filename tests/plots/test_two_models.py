from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from scc_tf import metrics
from scc_tf.evaluation.behaviour import measure_behaviour, measure_curves
from scc_tf.evaluation.footprint import Footprint
from scc_tf.evaluation.outputs import ClassifierOutputs
from scc_tf.evaluation.report import CompressionReport, ModelReport
from scc_tf.plots import compression_page
from scc_tf.plots.canvas import BLUE, GREY

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple("0123456789")
SHORT = ("float", "small")
LONG = ("winning_ticket, 60 % pruned, seed 0 of 9", "iterative pruning, rewound to epoch 100")
UNBROKEN = ("winning_ticket_pruned_60_percent_seed_00", "WINNING-TICKET-REWOUND-TO-EPOCH-100-SEED")
MIXED = ("dense", "winning_ticket, 60% pruned")


def a_model(name, seed, scale, stored_bytes, ood, energy):
    """What is measured of random logits that follow the labels; no two models of different seeds are alike."""
    rng = np.random.default_rng(seed)
    labels = np.arange(600) % 10
    logits = {key: scale * (rng.normal(size=(600, 10)) + 3 * np.eye(10)[labels]) for key in ("validation", "test")}
    if ood:
        logits["out"] = 1.5 * scale * rng.normal(size=(300, 10))
    outputs = ClassifierOutputs(logits, energy)
    kinds = metrics.KINDS if energy else ("probability", "entropy")
    return ModelReport(
        name=name,
        behaviour=measure_behaviour(outputs, labels, labels, 15),
        footprint=Footprint(4000 // seed, stored_bytes, 1000 // seed, 900, 800, 5000, 4000, 3000),
        ood=metrics.ood_report(logits["test"], logits["out"], kinds) if ood else None,
        curves=measure_curves(outputs, labels, 15, np.arange(5)),
    )


def a_report(names=SHORT, *, stored_bytes=125, ood=True, energy=True, shape=(28, 28, 1), class_names=DIGITS):
    """Two models compared: 4,000 and 2,000 bytes of float32, the second in a file."""
    pictures = np.random.default_rng(0).random((5, *shape), np.float32)
    return CompressionReport(
        before=a_model(names[0], 1, 1.0, None, ood, True),
        after=a_model(names[1], 2, 0.6, stored_bytes, ood, energy),
        data_name="mnist",
        class_names=class_names,
        images={"validation": 600, "test": 10_000, **({"out": 300} if ood else {})},
        bins=15,
        agreement=0.9,
        newly_wrong=0.0123,
        newly_right=0.01,
        examples=pictures if ood else None,
    )


def models_and_colours(report):
    return (report.before, GREY), (report.after, BLUE)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def panel(figure, title):
    """The one panel of this title."""
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left").replace("\n", " ") == title]
    return axes


def bars_of(axes):
    """Colour, heights and middles of each group of bars."""
    return [
        (
            to_hex(bars[0].get_facecolor()),
            [bar.get_height() for bar in bars],
            [bar.get_x() + bar.get_width() / 2 for bar in bars],
        )
        for bars in axes.containers
    ]


def check_pairs(axes, words, values, names):
    """A grey bar on the left and a blue one on the right of each word, with their values on them."""
    (grey, first, left), (blue, second, right) = bars_of(axes)
    assert (grey, blue) == (GREY.lower(), BLUE.lower())
    assert [bars.get_label() for bars in axes.containers] == list(names)
    assert first == pytest.approx(values[0], nan_ok=True)
    assert second == pytest.approx(values[1], nan_ok=True)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(words)
    ticks = axes.get_xticks()
    assert np.all(left < ticks) and np.all(ticks < right)


@pytest.mark.slow
@pytest.mark.parametrize(
    "report",
    [
        a_report(shape=(32, 32, 3), class_names=CLASSES),
        a_report(LONG),
        a_report(ood=False),
    ],
    ids=["colours", "long names", "no outsiders"],
)
def test_one_small_png_is_written_and_nothing_else_changes(rendered, report):
    rendered(compression_page, report)


@pytest.mark.parametrize("names", [SHORT, LONG])
def test_bars_and_dots_are_the_bins_of_each_model(drawn, names):
    report = a_report(names)
    figure = drawn(compression_page, report)
    for model, colour in models_and_colours(report):
        axes, curve = panel(figure, f"Reliability: {model.name}"), model.curves.reliability
        (bars,) = axes.containers
        assert [bar.get_height() for bar in bars] == curve.accuracy.tolist()
        assert [bar.get_x() for bar in bars] == pytest.approx(curve.edges[:-1])
        assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx(curve.edges[1:])
        assert {to_hex(bar.get_facecolor()) for bar in bars} == {colour.lower()}
        (dots,) = axes.collections
        filled = curve.weight > 0
        assert 0 < filled.sum() < 15
        np.testing.assert_array_equal(dots.get_offsets(), np.stack([curve.confidence, curve.accuracy], 1)[filled])
        assert np.argsort(dots.get_sizes()).tolist() == np.argsort(curve.weight[filled]).tolist()
        (diagonal,) = axes.lines
        np.testing.assert_array_equal(diagonal.get_data(), [[0, 1], [0, 1]])
        assert (axes.get_xlim(), axes.get_ylim()) == ((0, 1), (0, 1))
        numbers = model.behaviour
        assert [text.get_text() for text in axes.texts] == [
            f"ECE {100 * numbers.expected_calibration_error:.2f} %, "
            f"{100 * numbers.scaled_calibration_error:.2f} % at temperature {numbers.temperature:.2f}"
        ]


def test_the_risk_of_both_is_drawn_over_the_coverage(drawn):
    report = a_report()
    axes = panel(drawn(compression_page, report), "Risk and coverage")
    for line, (model, colour) in zip(axes.lines, models_and_colours(report), strict=True):
        np.testing.assert_array_equal(line.get_data(), [model.curves.coverage, model.curves.risk])
        assert line.get_color() == colour
        area = f"{model.name}: area {model.behaviour.risk_coverage_area:.4f}"
        assert line.get_label().replace("\N{NO-BREAK SPACE}", " ") == area


@pytest.mark.parametrize("energy", [True, False])
def test_bars_are_the_auroc_of_each_score(drawn, energy):
    """Probabilities have no energy: where only the first model has one, its bar stands alone."""
    report = a_report(energy=energy)
    axes = panel(drawn(compression_page, report), "Out of distribution")
    values = [
        [m.ood.scores[k].auroc if k in m.ood.scores else np.nan for k in metrics.KINDS]
        for m in (report.before, report.after)
    ]
    assert np.isnan(values[1][2]) == (not energy)
    check_pairs(axes, metrics.KINDS, values, SHORT)
    assert [text.get_text() for text in axes.texts] == [f"{v:.3f}" if v == v else "" for row in values for v in row]
    (chance,) = axes.lines
    assert set(chance.get_ydata()) == {0.5}


def test_without_outsiders_bars_are_the_calibration_errors(drawn):
    report = a_report(ood=False)
    figure = drawn(compression_page, report)
    axes = panel(figure, "Calibration errors")
    values = [
        [
            100 * b.expected_calibration_error,
            100 * b.expected_calibration_error_mass,
            100 * b.scaled_calibration_error,
            100 * b.uncertainty_calibration_error,
        ]
        for b in (report.before.behaviour, report.after.behaviour)
    ]
    check_pairs(axes, ["ECE", "ECE of\nequal mass", "ECE,\nscaled", "UCE"], values, SHORT)
    assert [text.get_text() for text in axes.texts] == [f"{v:.2f}" for row in values for v in row]
    assert axes.get_ylim()[1] > np.max(values)
    assert len(figure.axes) == 6


@pytest.mark.parametrize(("shape", "class_names"), [((28, 28, 1), DIGITS), ((32, 32, 3), CLASSES)])
def test_each_outsider_stands_above_what_both_make_of_it(drawn, shape, class_names):
    report = a_report(shape=shape, class_names=class_names)
    figure = drawn(compression_page, report)
    images, bars = figure.axes[6:11], figure.axes[11:]
    assert len(bars) == 5
    span = report.examples.max() - report.examples.min()
    for column in range(5):
        (image,) = images[column].images
        expected = (report.examples[column] - report.examples.min()) / span
        np.testing.assert_allclose(image.get_array(), np.broadcast_to(expected, (*shape[:2], 3)), atol=1e-6)
        values = [model.curves.example_probabilities[column] for model in (report.before, report.after)]
        check_pairs(bars[column], class_names, values, SHORT)
        assert bars[column].get_ylim() == (0, 1)
    assert "Single images out of distribution: class probabilities" in texts(figure)


def test_points_have_no_pictures(drawn):
    figure = drawn(compression_page, a_report(shape=(8,)))
    assert not [image for axes in figure.axes for image in axes.images]
    assert all(len(axes.containers) == 2 for axes in figure.axes[11:])


@pytest.mark.parametrize(
    ("stored_bytes", "size"),
    [
        (125, "4,000 bytes of float32 and 125 bytes of file: 32.0 times smaller"),
        (None, "4,000 and 2,000 bytes of float32: float32 ratio 2.00"),
    ],
)
def test_the_headline_names_both_models_and_their_sizes(drawn, stored_bytes, size):
    report = a_report(stored_bytes=stored_bytes)
    first, second = (100 * model.behaviour.accuracy for model in (report.before, report.after))
    assert drawn(compression_page, report).get_suptitle().splitlines() == [
        f"float and small on 10,000 test images of mnist: accuracy {first:.2f} and {second:.2f} %, 1.23 % newly wrong",
        size,
    ]


def written(figure):
    """Boxes, pixels, of all words but those on the axes: ``{(what it says, number): box}``."""
    figure.draw_without_rendering()
    on_axes = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in axis.findobj(Text)}
    words = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in on_axes]
    return {(text.get_text(), number): text.get_window_extent() for number, text in enumerate(words)}


@pytest.mark.slow
@pytest.mark.parametrize("ood", [True, False])
@pytest.mark.parametrize("names", [MIXED, LONG, UNBROKEN])
def test_words_stand_apart_and_inside_the_page(drawn, names, ood):
    figure = drawn(compression_page, a_report(names, ood=ood))
    boxes = written(figure)
    assert len(boxes) > 15
    for (first, its_box), (second, other_box) in combinations(boxes.items(), 2):
        assert not its_box.overlaps(other_box), (first, second)
    for words, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, words
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, words
    for picture in (axes for axes in figure.axes if axes.images):
        assert not any(box.overlaps(picture.get_window_extent()) for box in boxes.values())


@pytest.mark.slow
def test_names_that_are_too_long_are_cut(drawn):
    figure = drawn(compression_page, a_report(("a word " * 40, "ticket_" * 40)))
    found = texts(figure)
    assert all(any(text.startswith(start) and text.endswith("…") for text in found) for start in ("a word", "ticket_"))
    figure.draw_without_rendering()
    for title in ("Risk and coverage", "Out of distribution"):
        axes = panel(figure, title)
        assert axes.get_window_extent().width > 200 and axes.get_window_extent().height > 100
        assert 0 < axes.dataLim.y1 < axes.get_ylim()[1]
