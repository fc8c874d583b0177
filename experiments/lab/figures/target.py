"""How the size of a network comes to what was asked for."""

import os

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lab.figures.fields import fields, numbers
from scc_tf.plots.canvas import BLUE, DASHED, GREY, INK, drawing

__all__ = ["target_sizes"]


def target_sizes(record: dict, path: str | os.PathLike) -> None:
    """Draw the coded size of each run against the training step, and gamma below; targets are dashed.

    Args:
        record: under ``points`` one dictionary per target: ``target_bytes``, ``stored_bytes`` (of the finished file)
            and ``history``, with ``step``, ``stored_bytes`` and ``gamma`` (positive) in every entry.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing, there are no points, or a number is not finite or not positive.
    """
    (points,) = fields(record, "points")
    targets, files = numbers(points, "target_bytes", "stored_bytes")
    courses = [numbers(fields(point, "history")[0], "step", "stored_bytes", "gamma") for point in points]
    smallest = min(targets.min(), files.min(), *(course[1:].min() for course in courses))
    if smallest <= 0:
        raise ValueError(f"Expected positive bytes and gammas. Received: {smallest:g}")
    with drawing(path, 7.4, 6.2) as figure:
        above, below = figure.subplots(2, sharex=True, height_ratios=(5, 2))
        for target, file, (steps, sizes, gammas) in zip(targets, files, courses, strict=True):
            above.axhline(target / 1000, color=GREY, linewidth=1.2, linestyle=DASHED)
            above.plot(steps, sizes / 1000, color=BLUE)
            above.plot(steps[-1], file / 1000, "o", color=INK, ms=6, zorder=4)
            at = {"xytext": (0, -7), "textcoords": "offset points", "ha": "right", "va": "top"}
            above.annotate(f"{file / target - 1:+.1%}", (steps[-1], file / 1000), **at)
            below.plot(steps, gammas, color=BLUE, linewidth=1.4)
        _log_axis(above.yaxis, (1, 2, 5))
        _log_axis(below.yaxis, (1,))
        above.set_ylabel("coded size (kB)")
        below.set_ylabel("gamma")
        below.set_xlabel("training step")
        above.margins(x=0.02, y=0.1)  # the lowest label stands below its dot
        above.set_title("Dashed: asked for; dots: the finished files")


def _log_axis(axis, ticks):
    axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
