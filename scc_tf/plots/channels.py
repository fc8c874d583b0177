"""What compression did to the channels and codes of each kernel."""

import contextlib
import os

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from scc_tf.plots.canvas import BLUE, DASHED, GREY, ORANGE, drawing, fields, grid_of

__all__ = ["bits_per_layer", "code_histograms"]

FLOOR = 0.3  # weights: below one, out of sight on a logarithmic scale


def bits_per_layer(row: dict, path: str | os.PathLike) -> None:
    """Draw the bit depth of every channel, one panel per kernel, the widest channels first.

    Args:
        row: record of `lab.self_compression.compress`: ``bit_depths_before`` and ``bit_depths``.
        path: the PNG file to write.

    Raises:
        ValueError: if the record lacks a field, names no kernel, or a kernel has other channels before than after.
    """
    before, after = fields(row, "bit_depths_before", "bit_depths")
    _check_kernels(after)
    before = dict(zip(after, fields(before, *after), strict=True))
    before, after = ({name: _widest_first(name, b) for name, b in d.items()} for d in (before, after))
    with _panels(path, after) as (figure, panels):
        for axes, name in zip(panels, after, strict=True):
            _draw_bits(axes, name, before[name], after[name])
        panels[0].set_ylim(bottom=-0.045 * panels[0].get_ylim()[1])
        dead, channels = sum(np.sum(b <= 0) for b in after.values()), sum(map(len, after.values()))
        handles = [
            Line2D([], [], color=GREY, linewidth=1.4, linestyle=DASHED, label="before"),
            Patch(color=BLUE, label="after"),
            Patch(color=ORANGE, label=f"dead, 0 bits: {dead} of {channels} channels"),
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.5)
        figure.supxlabel("channel, widest first", fontsize=11)
        figure.supylabel("bit depth (bits)", fontsize=11)


def _draw_bits(axes, name, before, after):
    if len(before) != len(after):
        raise ValueError(f"Expected {name} to keep its channels. Received: {len(before)} before, {len(after)} after")
    live, edges = int(np.sum(after > 0)), np.arange(len(after) + 1)
    axes.stairs(after, edges, fill=True, color=BLUE)
    axes.stairs(before, edges, baseline=None, color=GREY, linewidth=1.4, linestyle=DASHED)
    if live < len(after):
        axes.plot([live, len(after)], [0, 0], color=ORANGE, linewidth=5, solid_capstyle="butt", zorder=3)
    _headline(axes, name, f"{len(after) - live} of {len(after)} dead")
    axes.set_xlim(0, len(after))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def code_histograms(row: dict, path: str | os.PathLike) -> None:
    """Draw how often each integer code occurs, one panel per kernel, on a logarithmic scale.

    Args:
        row: record of `lab.self_compression.compress`: ``code_counts``.
        path: the PNG file to write.

    Raises:
        ValueError: if the record lacks a field, names no kernel, or a kernel has no codes.
    """
    (counts,) = fields(row, "code_counts")
    _check_kernels(counts)
    with _panels(path, counts) as (figure, panels):
        for axes, (name, pairs) in zip(panels, counts.items(), strict=True):
            _draw_codes(axes, name, *np.array(pairs, float).T)
        panels[0].set_yscale("log")
        panels[0].set_ylim(bottom=2 * FLOOR)
        panels[0].yaxis.set_major_locator(LogLocator(numticks=6))
        panels[0].yaxis.set_minor_locator(NullLocator())
        panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        handles = [Patch(color=ORANGE, label="code 0"), Patch(color=BLUE, label="other codes")]
        figure.legend(handles=handles, loc="outside upper left", ncols=2, columnspacing=1.5)
        figure.supxlabel("integer code", fontsize=11)
        figure.supylabel("weights (log scale)", fontsize=11)


def _draw_codes(axes, name, codes, number):
    if number.min() <= 0:
        raise ValueError(f"Expected every code of {name} to occur. Received: counts={number}")
    zeros = number[codes == 0].sum() / number.sum()
    low, high = int(codes.min()), int(codes.max())
    heights = np.full(high - low + 1, FLOOR)
    heights[codes.astype(int) - low] = number
    axes.stairs(heights, np.arange(low, high + 2) - 0.5, baseline=FLOOR, fill=True, color=BLUE)
    axes.bar(codes[codes == 0], number[codes == 0], 1, color=ORANGE)
    _headline(axes, name, f"{100 * zeros:.{int(zeros < 0.995)}f} % zeros")
    reach = max(1, np.abs(codes).max()) + 0.7
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, symmetric=True))


@contextlib.contextmanager
def _panels(path, kernels):
    """A figure with one panel per kernel, and room for a legend that spans them."""
    columns = min(len(kernels), 3 if len(kernels) <= 9 else 4)
    rows = -(-len(kernels) // columns)
    dpi = 130 if rows <= 3 else 100 if rows <= 6 else 60  # the file stays small
    with drawing(path, max(2.45 * columns + 0.6, 5.6), 2.15 * rows + 1.0, dpi) as figure:
        yield figure, grid_of(figure, len(kernels), columns)


def _check_kernels(kernels):
    if not isinstance(kernels, dict) or not kernels or not all(kernels.values()):
        raise ValueError(f"Expected kernels with their channels or codes, none empty. Received: {kernels}")


def _widest_first(name, bit_depths):
    bits = np.sort(np.array(bit_depths, float))[::-1]
    if not np.isfinite(bits).all():
        raise ValueError(f"Expected finite bit depths. Received: {name}={bit_depths}")
    return bits


def _headline(axes, name, note):
    """The kernel's name (``conv1`` for ``conv1/kernel``) above a note, both above the axes."""
    name = name.removesuffix("/kernel")
    axes.set_title(note, fontsize=10, weight="normal", pad=4)
    where = {"xycoords": "axes fraction", "xytext": (0, 18), "textcoords": "offset points"}
    axes.annotate(name, (0, 1), weight="bold", fontsize=min(10.5, 230 / len(name)), **where)
