"""What compression did to the channels and codes of each kernel."""

import contextlib
import os

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from scc_tf.plots.canvas import BLUE, DASHED, GREY, ORANGE, drawing
from scc_tf.training import self_compressing_layers

__all__ = ["bits_per_layer", "code_histograms"]

FLOOR = 0.3  # weights: below one, out of sight on a logarithmic scale


def bits_per_layer(after, path: str | os.PathLike, before=None) -> None:
    """Draw the bit depth of every channel, one panel per kernel, the widest channels first.

    Args:
        after: self-compressing model; or ``{kernel: bit depths}``, such as was noted of one.
        path: the PNG file to write.
        before: the same of an earlier time, with the same channels, to compare with; or None.

    Raises:
        ValueError: if there is no kernel, or one has other channels before than after.

    Example:
        >>> bits_per_layer(small, "bits.png", before=scc_tf.self_compress(trained))  # doctest: +SKIP
    """
    after = _by_kernel(after, _bits)
    before = {} if before is None else _by_kernel(before, _bits)
    with _panels(path, after) as (figure, panels):
        for axes, (name, bits) in zip(panels, after.items(), strict=True):
            _draw_bits(axes, name, before.get(name), bits)
        panels[0].set_ylim(bottom=-0.045 * panels[0].get_ylim()[1])
        dead, channels = sum(np.sum(bits <= 0) for bits in after.values()), sum(map(len, after.values()))
        was = [Line2D([], [], color=GREY, linewidth=1.4, linestyle=DASHED, label="before")] if before else []
        handles = [
            *was,
            Patch(color=BLUE, label="after"),
            Patch(color=ORANGE, label=f"dead, 0 bits: {dead} of {channels} channels"),
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.5)
        figure.supxlabel("channel, widest first", fontsize=11)
        figure.supylabel("bit depth (bits)", fontsize=11)


def _bits(layer):
    return {own.name: own.bit_depth for own in layer.formats}


def _draw_bits(axes, name, before, after):
    live, edges = int(np.sum(after > 0)), np.arange(len(after) + 1)
    after = np.sort(after)[::-1]
    axes.stairs(after, edges, fill=True, color=BLUE)
    if before is not None:
        if len(before) != len(after):
            raise ValueError(
                f"Expected {name} to keep its channels. Received: {len(before)} before, {len(after)} after"
            )
        axes.stairs(np.sort(before)[::-1], edges, baseline=None, color=GREY, linewidth=1.4, linestyle=DASHED)
    if live < len(after):
        axes.plot([live, len(after)], [0, 0], color=ORANGE, linewidth=5, solid_capstyle="butt", zorder=3)
    _headline(axes, name, f"{len(after) - live} of {len(after)} dead")
    axes.set_xlim(0, len(after))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def code_histograms(model, path: str | os.PathLike) -> None:
    """Draw how often each integer code occurs, one panel per kernel, on a logarithmic scale.

    Args:
        model: self-compressing model; or ``{kernel: codes}``, integers.
        path: the PNG file to write.

    Raises:
        ValueError: if there is no kernel.

    Example:
        >>> code_histograms(small, "codes.png")  # doctest: +SKIP
    """
    codes = _by_kernel(model, lambda layer: {name: layer.codes(name) for name in layer.kernel_names})
    with _panels(path, codes) as (figure, panels):
        for axes, (name, values) in zip(panels, codes.items(), strict=True):
            _draw_codes(axes, name, *np.unique(values.astype(int), return_counts=True))
        panels[0].set_yscale("log")
        panels[0].set_ylim(bottom=2 * FLOOR)
        panels[0].yaxis.set_major_locator(LogLocator(numticks=6))
        panels[0].yaxis.set_minor_locator(NullLocator())
        panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        handles = [Patch(color=ORANGE, label="code 0"), Patch(color=BLUE, label="other codes")]
        figure.legend(handles=handles, loc="outside upper left", ncols=2, columnspacing=1.5)
        figure.supxlabel("integer code", fontsize=11)
        figure.supylabel("weights (log scale)", fontsize=11)


def _draw_codes(axes, name, codes, counts):
    zeros = counts[codes == 0].sum() / counts.sum()
    heights = np.full(codes[-1] - codes[0] + 1, FLOOR)
    heights[codes - codes[0]] = counts
    axes.stairs(heights, np.arange(codes[0], codes[-1] + 2) - 0.5, baseline=FLOOR, fill=True, color=BLUE)
    axes.bar(codes[codes == 0], counts[codes == 0], 1, color=ORANGE)
    _headline(axes, name, f"{100 * zeros:.{int(zeros < 0.995)}f} % zeros")
    reach = max(1, np.abs(codes).max()) + 0.7
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, symmetric=True))


def _by_kernel(model, values):
    """``{kernel: float array}`` of a self-compressing model, or of such a dictionary."""
    if not isinstance(model, dict):
        layers = self_compressing_layers(model)
        model = {f"{layer.name}/{name}": own for layer in layers for name, own in values(layer).items()}
    found = {name: np.asarray(array, float).ravel() for name, array in model.items()}
    if not found or not all(array.size and np.isfinite(array).all() for array in found.values()):
        raise ValueError(f"Expected kernels with finite values, none empty. Received: {list(found)}")
    return found


@contextlib.contextmanager
def _panels(path, kernels):
    """A figure with one panel per kernel, and room for a legend that spans them."""
    columns = min(len(kernels), 3 if len(kernels) <= 9 else 4)
    rows = -(-len(kernels) // columns)
    dpi = 130 if rows <= 3 else 100 if rows <= 6 else 60  # the file stays small
    with drawing(path, max(2.45 * columns + 0.6, 5.6), 2.15 * rows + 1.0, dpi) as figure:
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes in grid.flat[len(kernels) :]:
            axes.remove()
        yield figure, grid.flat[: len(kernels)]


def _headline(axes, name, note):
    """The kernel's name (``conv1`` for ``conv1/kernel``) above a note, both above the axes."""
    name = name.removesuffix("/kernel")
    axes.set_title(note, fontsize=10, weight="normal", pad=4)
    where = {"xycoords": "axes fraction", "xytext": (0, 18), "textcoords": "offset points"}
    axes.annotate(name, (0, 1), weight="bold", fontsize=min(10.5, 230 / len(name)), **where)
