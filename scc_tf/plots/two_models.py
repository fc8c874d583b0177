"""Two models compared on one page: calibration, confidence, risk, and single images from elsewhere."""

import os
import textwrap

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scc_tf.plots.canvas import BLUE, DASHED, GREY, INK, ORANGE, drawing

__all__ = ["compression_page"]

COLORS = (GREY, BLUE)  # before, after
MOST_NAMES = 12  # classes whose names fit below a panel
PAGE_LINE, TITLE_LINE, LEGEND_LINE = 125, 29, 27  # characters that fit on a line: of the page, and of a panel
PAIR_LINE = 24  # of two names side by side in a panel's legend
MOST_LINES = 3  # of a title or a name in a legend; what is longer is cut


def compression_page(report, path: str | os.PathLike) -> None:
    """Draw a comparison of two models.

    Above: accuracy against confidence of each model (the dots are as large as their share of the images; below the
    diagonal a model is too sure), and the risk where only the surest images are answered. In the middle: how sure each
    model is of test images and, where there are any, of images out of distribution, and how well that tells the two
    apart. Below: the class probabilities of single images out of distribution. Names of up to 40 characters fit.

    Args:
        report: `scc_tf.evaluation.CompressionReport`.
        path: the PNG file to write.

    Example:
        >>> compression_page(report, "page.png")  # doctest: +SKIP
    """
    examples = 0 if report.examples is None else len(report.examples)
    models = report.before, report.after
    with drawing(path, 12.4, 12.6 if examples else 8.4, dpi=90) as figure:  # below 200 kB, photographs included
        figure.suptitle(_headline(report), x=0.01, ha="left", fontsize=12.5, linespacing=1.5)
        parts = figure.subfigures(2, 1, height_ratios=(1.9, 1)) if examples else [figure]
        panels = parts[0].subplots(2, 3)
        for axes, model, color in zip(panels[0], models, COLORS, strict=False):
            _draw_reliability(axes, model, color)
        _draw_risk(panels[0, 2], models)
        top = max(h.max() for m in models for h in (m.curves.confidence_in, m.curves.confidence_out) if h is not None)
        for axes, model, color in zip(panels[1], models, COLORS, strict=False):
            _draw_confidence(axes, model, color, top)
        if report.before.ood:
            _draw_separation(panels[1, 2], models)
        else:
            _draw_calibration_errors(panels[1, 2], models)
        if examples:
            _draw_examples(parts[1], report)


def _headline(report):
    before, after = report.before, report.after
    whole, cut, stored = before.footprint.float32_bytes, after.footprint.float32_bytes, after.footprint.stored_bytes
    lines = [
        f"{before.name} and {after.name} on {report.images['test']:,} test images of {report.data_name}: "
        f"accuracy {100 * before.behaviour.accuracy:.2f} and {100 * after.behaviour.accuracy:.2f} %, "
        f"{100 * report.newly_wrong:.2f} % newly wrong",
    ]
    if stored:
        lines.append(
            f"{whole:,} bytes of float32 and {stored:,} bytes of file: {report.compression_ratio:.1f} times smaller"
        )
    elif report.float32_ratio:
        lines.append(f"{whole:,} and {cut:,} bytes of float32: float32 ratio {report.float32_ratio:.2f}")
    return "\n".join(textwrap.fill(line, PAGE_LINE) for line in lines)


def _draw_reliability(axes, model, color):
    curve, numbers = model.curves.reliability, model.behaviour
    filled = curve.weight > 0
    axes.bar(curve.edges[:-1], curve.accuracy, np.diff(curve.edges), align="edge", color=color, alpha=0.25)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1.2, linestyle=DASHED)
    sizes = 12 + 260 * curve.weight[filled]
    axes.scatter(
        curve.confidence[filled], curve.accuracy[filled], sizes,
        color=color, ec="white", lw=0.7, zorder=3, clip_on=False,
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(_wrapped(f"Reliability: {model.name}", TITLE_LINE), pad=26)
    words = (
        f"ECE {100 * numbers.expected_calibration_error:.2f} %, "
        f"{100 * numbers.scaled_calibration_error:.2f} % at temperature {numbers.temperature:.2f}"
    )
    axes.text(0, 1.05, words, transform=axes.transAxes, fontsize=9.5)
    _percent(axes.xaxis, axes.yaxis)


def _draw_risk(axes, models):
    for model, color in zip(models, COLORS, strict=True):
        label = f"{model.name}: area\N{NO-BREAK SPACE}{model.behaviour.risk_coverage_area:.4f}"
        axes.plot(model.curves.coverage, model.curves.risk, color=color, label=label)
    axes.set(xlim=(0, 1), xlabel="coverage: share of images answered", ylabel="risk: wrong answers among them")
    axes.set_title("Risk and coverage", pad=26)
    _legend_above(axes, max(0.001, *(m.curves.risk.max() for m in models)))
    _percent(axes.xaxis, axes.yaxis)


def _draw_confidence(axes, model, color, top):
    curves = model.curves
    axes.stairs(curves.confidence_in, curves.confidence_edges, color=color, fill=True, alpha=0.45, label="test images")
    if curves.confidence_out is not None:
        axes.stairs(curves.confidence_out, curves.confidence_edges, color=ORANGE, lw=2, label="out of distribution")
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * top), xlabel="confidence", ylabel="share of images")
    axes.set_title(_wrapped(f"Confidence: {model.name}", TITLE_LINE))
    axes.legend(loc="upper left", fontsize=10)
    _percent(axes.xaxis, axes.yaxis)


def _draw_separation(axes, models):
    kinds = list(dict.fromkeys(kind for model in models for kind in model.ood.scores))
    values = [[model.ood.scores[k].auroc if k in model.ood.scores else np.nan for k in kinds] for model in models]
    _draw_pairs(axes, kinds, values, models, top=1)
    axes.axhline(0.5, color=INK, linewidth=1.2, linestyle=DASHED)  # chance
    axes.set(ylabel="AUROC", title="Out of distribution")
    axes.set_yticks(np.linspace(0, 1, 6))


def _draw_calibration_errors(axes, models):
    words = {
        "ECE": "expected_calibration_error",
        "ECE of\nequal mass": "expected_calibration_error_mass",
        "ECE,\nscaled": "scaled_calibration_error",
        "UCE": "uncertainty_calibration_error",
    }
    values = [[100 * getattr(model.behaviour, name) for name in words.values()] for model in models]
    _draw_pairs(axes, list(words), values, models, top=max(0.1, np.max(values)), digits=2)
    axes.set(ylabel="calibration error (%)", title="Calibration errors")


def _draw_pairs(axes, words, values, models, top, digits=3):
    """For each word a bar of each model, none higher than ``top``."""
    places = np.arange(len(words))
    for row, model, color, side in zip(values, models, COLORS, (-0.2, 0.2), strict=True):
        bars = axes.bar(places + side, row, 0.36, color=color, label=model.name)
        labels = ["" if np.isnan(v) else f"{v:.{digits}f}" for v in row]
        axes.bar_label(bars, labels, fontsize=8, padding=2)
    axes.set_xticks(places, words, fontsize=10)
    axes.grid(visible=False, axis="x")
    _legend_above(axes, top, columns=2 if sum(len(model.name) for model in models) <= PAIR_LINE else 1)


def _legend_above(axes, top, columns=1):
    """A legend above what is drawn up to ``top``: a line takes 9 % of the panel, and so do the numbers on the bars."""
    handles, labels = _wrapped_labels(axes)
    lines = sum(1 + label.count("\n") for label in labels) // columns
    axes.set_ylim(0, top / (1 - 0.09 * (lines + 1)))
    axes.legend(handles, labels, loc="upper left", fontsize=10, ncols=columns)


def _draw_examples(figure, report):
    """A column for each image: the image, and below it what both models make of it."""
    count, classes = len(report.examples), len(report.class_names)
    pictures = _pictures(report.examples)
    rows = figure.subplots(2, count, squeeze=False, height_ratios=(1, 1.1), sharey="row")
    figure.suptitle("Single images out of distribution: class probabilities", x=0.01, ha="left", weight="bold")
    places = np.arange(classes)
    for column in range(count):
        image, bars = rows[:, column]
        image.axis("off")
        if pictures is not None:
            image.imshow(pictures[column], interpolation="nearest")
        for model, color, side in zip((report.before, report.after), COLORS, (-0.2, 0.2), strict=True):
            bars.bar(places + side, model.curves.example_probabilities[column], 0.4, color=color, label=model.name)
        bars.set_ylim(0, 1)
        bars.grid(visible=False, axis="x")
        bars.set_xticks(places if classes <= MOST_NAMES else [], report.class_names if classes <= MOST_NAMES else [])
        bars.tick_params(axis="x", labelsize=9, rotation=90 * (max(map(len, report.class_names)) > 2))
        _percent(bars.yaxis)
    rows[1, 0].set_ylabel("probability")
    figure.legend(*_wrapped_labels(rows[1, 0]), loc="outside upper right", ncols=2, fontsize=10)


def _pictures(examples):
    """Images in [0, 1], the range of all of them mapped to black and white; None if they are no images."""
    if examples.ndim != 4 or examples.shape[-1] not in (1, 3):
        return None
    low, high = examples.min(), examples.max()
    pictures = (examples - low) / max(high - low, np.finfo(np.float32).tiny)
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))


def _wrapped(words, width):
    return textwrap.fill(words, width, max_lines=MOST_LINES, placeholder=" …")


def _wrapped_labels(axes):
    """Handles and labels of a legend."""
    handles, labels = axes.get_legend_handles_labels()
    return handles, [_wrapped(label, LEGEND_LINE) for label in labels]


def _percent(*axes):
    for axis in axes:
        axis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
