"""Error against the size of the file, beside what others have published."""

import os

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from scc_tf.plots.canvas import BLUE, GREY, INK, ORANGE, drawing, fields, numbers

__all__ = ["size_accuracy_front"]


def size_accuracy_front(record: dict, path: str | os.PathLike) -> None:
    """Draw the test error against the stored bytes, one panel per network, with the published points.

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
    with drawing(path, 4.6 * len(networks) + 0.6, 4.8) as figure:
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
    if records:
        axes.plot(*best, "*", color=ORANGE, ms=12, mec="white", mew=0.7, label="scc_tf, in full")
    axes.plot(*others.T, "D", color=GREY, ms=6, mec="white", mew=0.7, label="published")
    axes.set_xscale("log")
    axes.margins(x=0.14, y=0.16)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("stored bytes")
    axes.set_title(name)
    middle = np.sqrt(np.prod(axes.get_xlim()))
    for (words, size, error), up in zip(published, _above(others), strict=True):
        left = size > middle
        axes.annotate(
            words, (size, error), xytext=(-4 if left else 4, 8 if up else -8), textcoords="offset points",
            ha="right" if left else "left", va="bottom" if up else "top", fontsize=8.5, color=INK,
        )  # fmt: skip
    axes.legend(loc="upper right")


def _above(others):
    """Whether the words of each point stand above it: alternately, from left to right."""
    above = np.zeros(len(others), bool)
    above[np.argsort(others[:, 0])[::2]] = True
    return above
