"""Error against the size of the file, beside what others have published."""

import os

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lab.figures.fields import fields, numbers
from scc_tf.plots.canvas import BLUE, GREY, INK, ORANGE, drawing

__all__ = ["size_accuracy_front"]


def size_accuracy_front(record: dict, path: str | os.PathLike) -> None:
    """Draw the test error against the stored bytes, one panel per network, with the published points.

    Published points are numbered from the smallest; the legend says whose they are.

    Args:
        record: under ``networks`` ``{name: {"points": […], "published": […], "records": […]}}``; a point and a record
            (a network trained in full; there may be none) have ``stored_bytes`` and ``test_error`` (per cent), a
            published one is ``(name, bytes, test error)``.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing, a network has no points, or a number is not finite or not positive.
    """
    (networks,) = fields(record, "networks")
    if not networks:
        raise ValueError("Expected at least one network. Received: none")
    with drawing(path, 4.6 * len(networks) + 0.6, 5.8) as figure:
        panels = figure.subplots(1, len(networks), squeeze=False)[0]
        for axes, (name, network) in zip(panels, networks.items(), strict=True):
            _draw(axes, name, network)
        panels[0].set_ylabel("test error (%)")


def _draw(axes, name, network):
    points, published, records = fields(network, "points", "published", "records")
    sizes, errors = numbers(points, "stored_bytes", "test_error")
    others = np.array([row[1:] for row in published], float).reshape(-1, 2)
    best = numbers(records, "stored_bytes", "test_error") if records else np.empty((2, 0))
    if not np.isfinite(others).all():
        raise ValueError(f"Expected finite numbers. Received: published={published}")
    if (smallest := min(*sizes, *best[0], *others[:, 0], np.inf)) <= 0:
        raise ValueError(f"Expected positive bytes. Received: {smallest:g}")
    order = np.argsort(sizes)
    axes.plot(sizes[order], errors[order], color=BLUE, marker="o", ms=7, mec="white", mew=0.7, label="scc_tf, short")
    ranked = sorted(published, key=lambda row: row[1])
    for number, (words, size, error) in enumerate(ranked, start=1):
        axes.plot(size, error, "D", color=GREY, ms=11, mec="white", mew=0.7)
        axes.annotate(f"{number}", (size, error), ha="center", va="center", fontsize=8, color="white", weight="bold")
        axes.plot([], [], marker=f"${number}$", ls="", color=INK, label=words)  # the number in the legend
    if records:
        axes.plot(*best, "*", color=ORANGE, ms=12, mec="white", mew=0.7, label="scc_tf, in full")
    axes.set_xscale("log")
    axes.margins(x=0.14, y=0.16)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("stored bytes")
    axes.set_title(name)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=9.5)
