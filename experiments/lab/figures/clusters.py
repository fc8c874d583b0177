"""Filter clustering in pictures: what smaller networks are worth, and what decides it."""

import os

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lab.figures.fields import fields, numbers
from scc_tf.plots.canvas import BLUE, DASHED, GREY, INK, ORANGE, drawing

__all__ = ["class_reports", "cluster_correlations", "cluster_tradeoff"]

_METHODS = {  # method -> colour, marker, words
    "clusters": (BLUE, "o", "clusters (ours)"),
    "budget": ("#009E73", "D", "clusters, budget spread by sensitivity"),
    "summed": ("#8C8C8C", "P", "clusters, readers not fitted"),
    "effective": ("#0A3D62", "X", "clusters of normalized filters, not fitted"),
    "founding": (ORANGE, "^", "clusters, founding form"),
    "l1": ("#CC79A7", "s", "L1 filter pruning"),
    "l1_fitted": ("#7B3F61", "h", "L1 filter pruning, readers fitted"),
    "random": ("#56B4E9", "v", "random filters"),
}
_GRID = "#C9C9C9"
_MEASURES = {"precision": "precision (%)", "recall": "recall (%)", "f1-score": "F1 (%)"}


def cluster_tradeoff(record: dict, path: str | os.PathLike) -> None:
    """Draw the test accuracy against parameters and work, and against the measured latency where there is one.

    Lines join the networks without fine-tuning; stars are fine-tuned; the dashed line is the original. Rows that share
    method, label and fine-tuning are draws of the same: their mean is drawn, with the sample deviation.

    Args:
        record: ``baseline`` and ``rows`` of `lab.filter_clustering.run`; ``curve``, the labels that lines
            join, other rows of clusters are small dots; ``latency``, ``{label: {"ratio"}}`` to the original, may be
            empty.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing, a method is unknown, or there are no rows.
    """
    baseline, rows, curve, latency = fields(record, "baseline", "rows", "curve", "latency")
    names = [fields(row, "method")[0] for row in rows]
    if unknown := set(names) - set(_METHODS):
        raise ValueError(f"Expected the methods {', '.join(_METHODS)}. Received: {', '.join(sorted(unknown))}")
    numbers(rows, "parameters", "multiply_accumulates", "test_accuracy", "epochs")
    panels = [
        ("parameters (thousands)", lambda row: row["parameters"] / 1e3),
        ("multiply-accumulates (millions)", lambda row: row["multiply_accumulates"] / 1e6),
    ]
    if latency:
        ratios = {label: fields(values, "ratio")[0] for label, values in latency.items()}
        panels.append(("TFLite latency, share of the original", lambda row: ratios.get(row["label"], np.nan)))
    drawn = [name for name in _METHODS if name in names]
    with drawing(path, 4.3 * len(panels), 5.0, dpi=100) as figure:
        for axes, (words, value) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
            axes.axhline(100 * baseline["test_accuracy"], color=INK, linewidth=1.2, linestyle=DASHED)
            for name in drawn:
                _draw_method(axes, name, [row for row in rows if row["method"] == name], value, curve)
            axes.set_xlabel(words)
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(6))
        figure.axes[0].set_ylabel("test accuracy (%)")
        figure.legend(handles=_handles(drawn, rows, curve), loc="outside upper left", ncols=4, columnspacing=1.4)


def _draw_method(axes, name, rows, value, curve):
    color, marker, _ = _METHODS[name]
    draws = {}
    for row in rows:
        draws.setdefault((row["label"], row["epochs"] > 0), []).append(row)
    points = []  # place, mean, sample deviation, fine-tuned, joined
    for (label, tuned), same in draws.items():
        accuracies = [100 * row["test_accuracy"] for row in same]
        deviation = np.std(accuracies, ddof=1) if len(same) > 1 else 0.0
        points.append((value(same[0]), np.mean(accuracies), deviation, tuned, label in curve))
    points = np.array(points, float).reshape(-1, 5)
    points = points[~np.isnan(points[:, 0])]
    tuned, joined = points[:, 3] > 0, points[:, 4] > 0
    line = points[~tuned & (joined if name == "clusters" else True)]
    line = line[np.argsort(line[:, 0])]
    if name == "clusters":
        axes.plot(*points[~tuned & ~joined, :2].T, "o", color=_GRID, ms=5, zorder=1)
    style = "" if name == "budget" else "-"
    axes.plot(*line[:, :2].T, color=color, marker=marker, linestyle=style, ms=6.5, mec="white", mew=0.6, lw=1.7)
    axes.vlines(line[:, 0], line[:, 1] - line[:, 2], line[:, 1] + line[:, 2], color=color, lw=1.2)
    axes.plot(*points[tuned, :2].T, "*", color=color, ms=15, mec="white", mew=0.8, zorder=4)


def _handles(drawn, rows, curve):
    handles = []
    for name in drawn:
        color, marker, words = _METHODS[name]
        handles.append(
            Line2D([], [], color=color, marker=marker, ms=6, label=words, ls="" if name == "budget" else "-")
        )
    if any(row["method"] == "clusters" and row["label"] not in curve and not row["epochs"] for row in rows):
        handles.append(Line2D([], [], color=_GRID, marker="o", ls="", ms=5, label="grid of clusters per stage"))
    if any(row["epochs"] for row in rows):
        handles.append(Line2D([], [], color=GREY, marker="*", ls="", ms=12, label="fine-tuned"))
    return [*handles, Line2D([], [], color=INK, linewidth=1.2, linestyle=DASHED, label="original")]


def cluster_correlations(record: dict, path: str | os.PathLike) -> None:
    """Draw Pearson's and Spearman's correlations of every pair of columns as two tables.

    Args:
        record: of `lab.filter_clustering.correlations`: ``columns``, ``pearson``, ``spearman``.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing, or a table does not fit the columns.
    """
    columns, *tables = fields(record, "columns", "pearson", "spearman")
    tables = [np.array(table, float) for table in tables]  # None becomes NaN
    if any(table.shape != (len(columns), len(columns)) for table in tables):
        raise ValueError(f"Expected tables of {len(columns)} columns. Received: {[table.shape for table in tables]}")
    with drawing(path, 10.6, 5.0, dpi=100) as figure:
        for axes, table, title in zip(figure.subplots(1, 2), tables, ("Pearson", "Spearman"), strict=True):
            axes.imshow(table, cmap="Blues", vmin=0, vmax=1)
            for (row, column), value in np.ndenumerate(table):
                words = "-" if np.isnan(value) else f"{value:.3f}"
                color = "white" if value > 0.6 else INK
                axes.text(column, row, words, ha="center", va="center", color=color, fontsize=10)
            axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
            axes.set_yticks(range(len(columns)), columns)
            axes.tick_params(length=0)
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            axes.set_title(title)


def class_reports(reports: dict, path: str | os.PathLike) -> None:
    """Draw precision, recall and F1 of every class, for several networks side by side.

    Args:
        reports: ``{words: {class: {"precision", "recall", "f1-score"}}}``, fractions; at most four networks of the same
            classes.
        path: the PNG file to write.

    Raises:
        ValueError: if there is no network or more than four, their classes differ, or a field is missing.
    """
    looks = ((GREY, "s"), (ORANGE, "^"), (BLUE, "o"), ("#009E73", "D"))
    classes = [list(report) for report in reports.values()]
    if not 1 <= len(reports) <= len(looks) or any(names != classes[0] for names in classes):
        raise ValueError(f"Expected one to four networks of the same classes. Received: {list(reports)}, {classes}")
    places = np.arange(len(classes[0]))[::-1]
    with drawing(path, 11.0, 1.6 + 0.36 * len(places), dpi=100) as figure:
        for axes, (measure, words) in zip(figure.subplots(1, 3, sharey=True), _MEASURES.items(), strict=True):
            values = 100 * np.array([numbers(list(report.values()), measure)[0] for report in reports.values()])
            axes.hlines(places, values.min(axis=0), values.max(axis=0), color="#D4D4D4", linewidth=2, zorder=1)
            for own, (color, marker) in zip(values, looks, strict=False):
                axes.plot(own, places, marker, color=color, ms=8, mec="white", mew=0.7)
            axes.set_xlabel(words)
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
        figure.axes[0].set_yticks(places, classes[0])
        handles = [
            Line2D([], [], ls="", marker=marker, color=color, ms=8, label=words)
            for words, (color, marker) in zip(reports, looks, strict=False)
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=4, columnspacing=1.4)
