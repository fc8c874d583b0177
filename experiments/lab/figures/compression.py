"""Deep Compression in pictures: what each stage is worth, what a file is made of, and which edges to keep."""

import os

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lab.figures.fields import fields, numbers
from scc_tf.plots.canvas import BLUE, DASHED, GREY, INK, ORANGE, bytes_axis, drawing

__all__ = ["byte_budgets", "compression_tradeoff", "storage_breakdown"]

_STAGES = {  # stages -> colour, marker, words
    "pruning": (ORANGE, "^", "pruning alone"),
    "sharing": (GREY, "s", "shared weights alone"),
    "both": (BLUE, "o", "both"),
}
_PARTS = {  # field of a `PackedReport` -> colour, words
    "code_bytes": (BLUE, "weights"),
    "index_bytes": ("#56B4E9", "positions"),
    "codebook_bytes": (ORANGE, "codebooks"),
    "table_bytes": ("#CC79A7", "Huffman tables"),
    "other_bytes": ("#E69F00", "biases, statistics"),
    "architecture_bytes": (GREY, "architecture"),
    "header_bytes": (INK, "header"),
}
_METHODS = {"knapsack": (BLUE, "o"), "saliency": (GREY, "s"), "magnitude": (ORANGE, "^")}  # -> colour, marker
_CODERS = {"range": "range coder", "huffman": "Huffman"}


def compression_tradeoff(record: dict, path: str | os.PathLike) -> None:
    """Draw the test error against the size of the file, as in figure 6 of the paper.

    Args:
        record: one record of `lab.deep_compression.run`, with its ``points``.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing, there are no points, the stages of one are unknown or a file has no bytes.
    """
    points, start, final = fields(record, "points", "float", "final")
    sizes, errors = numbers(points, "stored_bytes", "test_error")
    names = np.array([fields(point, "stages")[0] for point in points])
    if unknown := {str(name) for name in names} - set(_STAGES):
        raise ValueError(f"Expected the stages {', '.join(_STAGES)}. Received: {', '.join(sorted(unknown))}")
    ((whole, float_error),) = numbers([start], "float32_bytes", "test_error").T
    ((end, end_error),) = numbers([final], "stored_bytes", "test_error").T
    if (smallest := min(sizes.min(), whole, end)) <= 0:
        raise ValueError(f"Expected positive bytes. Received: {smallest:g}")
    drawn = {name: style for name, style in _STAGES.items() if name in names}
    with drawing(path, 7.4, 4.6) as figure:
        axes = figure.subplots()
        axes.axhline(float_error, color=INK, linewidth=1.4, linestyle=DASHED)
        for name, (color, marker, _) in drawn.items():
            order = np.argsort(sizes[names == name])
            x, y = 100 * sizes[names == name][order] / whole, errors[names == name][order]
            axes.plot(x, y, color=color, marker=marker, ms=7, mec="white", mew=0.7)
        axes.plot(100 * end / whole, end_error, "*", color=BLUE, ms=16, mec="white", zorder=4)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.margins(x=0.06)
        axes.set_ylim(*_error_range(errors, float_error, end_error, [errors[names == name].min() for name in drawn]))
        axes.set_xlabel("whole .scc file, % of the float32 weights")
        axes.set_ylabel("test error (%)")
        handles = [
            Line2D([], [], color=color, marker=marker, ms=7, label=words) for color, marker, words in drawn.values()
        ]
        handles.append(Line2D([], [], ls="", marker="*", color=BLUE, ms=13, label="final network"))
        handles.append(Line2D([], [], color=INK, linewidth=1.4, linestyle=DASHED, label="float"))
        figure.legend(handles=handles, loc="outside upper left", ncols=5, columnspacing=1.2)


def _error_range(errors, float_error, end_error, best):
    """Limits of the errors: far above the float network's only as much as the ``best`` of each stage needs."""
    low = min(errors.min(), float_error, end_error)
    high = max(min(errors.max(), 2.5 * float_error), float_error, end_error, *best)
    room = 0.08 * (high - low) or 0.5
    return max(low - room, 0) if low else -0.5 * room, high + room


def storage_breakdown(record: dict, path: str | os.PathLike) -> None:
    """Draw what the two files of a network are made of, as in figure 11 of the paper.

    Args:
        record: one record of `lab.deep_compression.run`.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing or there is no file.
    """
    (parts,) = fields(record, "parts")
    if not isinstance(parts, dict) or not parts:
        raise ValueError(f"Expected the parts of at least one file. Received: parts={parts!r}")
    coders = list(parts)[::-1]  # bars are drawn from below
    table = numbers([parts[coder] for coder in coders], *_PARTS)
    with drawing(path, 7.4, 1.6 + 0.6 * len(coders)) as figure:
        axes = figure.subplots()
        left = np.zeros(len(coders))
        for values, (color, words) in zip(table, _PARTS.values(), strict=True):
            if values.any():
                axes.barh(coders, values, height=0.7, left=left, color=color, ec="white", lw=0.7, label=words)
            left += values
        clear = {"fc": "white", "ec": "none", "pad": 1}  # of grid lines
        for place, total in enumerate(left):
            at = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{total:,.0f} B", (total, place), bbox=clear, **at)
        axes.set_xlim(0, left.max() * 1.17)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_yticks(range(len(coders)), [_CODERS.get(coder, coder) for coder in coders])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("bytes of the .scc file")
        axes.grid(visible=False, axis="y")
        figure.legend(
            loc="outside upper left", ncols=7, columnspacing=0.9, handlelength=0.9, handletextpad=0.4, fontsize=9
        )


def byte_budgets(record: dict, path: str | os.PathLike) -> None:
    """Draw the test error at several sizes of the file, for each way to choose the edges.

    Args:
        record: under ``summary`` one dictionary per budget and ``method`` ("knapsack", "saliency" or "magnitude"), with
            means over seeds: ``stored_bytes``, ``test_error`` (per cent) and its sample ``deviation`` or None.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing, a method has another name or a number is not finite.
    """
    (rows,) = fields(record, "summary")
    sizes, errors = numbers(rows, "stored_bytes", "test_error")
    deviations = np.array([fields(row, "deviation")[0] or 0.0 for row in rows])
    names = np.array([fields(row, "method")[0] for row in rows])
    if unknown := {str(name) for name in names} - set(_METHODS):
        raise ValueError(f"Expected the methods {', '.join(_METHODS)}. Received: {', '.join(sorted(unknown))}")
    with drawing(path, 7.4, 4.2) as figure:
        axes = figure.subplots()
        for name, (color, marker) in _METHODS.items():
            if (own := names == name).any():
                look = {"color": color, "marker": marker, "ms": 7, "mec": "white", "mew": 0.7, "capsize": 4}
                axes.errorbar(sizes[own] / 1000, errors[own], deviations[own], label=name, **look)
        axes.set_ylim(bottom=0)
        bytes_axis(axes.xaxis, sizes / 1000)
        axes.set_xlabel("whole .scc file, kB")
        axes.set_ylabel("test error (%)")
        figure.legend(loc="outside upper left", ncols=3, columnspacing=1.5)
