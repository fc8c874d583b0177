"""What the figures share: one style, and files that are whole or not there.

No pyplot, so no global state and no display.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

from scc_tf.atomic import atomic_path

__all__ = ["BLUE", "DASHED", "GREY", "INK", "ORANGE", "bytes_axis", "drawing"]

BLUE, ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito, told apart by colour-blind readers
INK, GREY = "#222222", "#767676"
DASHED = (0, (4, 3))
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 11,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "lines.linewidth": 2.0,
    "savefig.dpi": "figure",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextlib.contextmanager
def drawing(path, width, height, dpi=130):
    """A figure to draw on; it is written to ``path``, whole, when the block has succeeded.

    Args:
        path: the PNG file to write.
        width: inches.
        height: inches.
        dpi: pixels per inch.

    Yields:
        `matplotlib.figure.Figure` in the style of this package.

    Raises:
        ValueError: if the path does not end in .png.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"Expected the path of a .png file. Received: {path}")
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        pixels = io.BytesIO()
        figure.savefig(pixels, format="rgba")
        image = Image.frombytes("RGBA", figure.canvas.get_width_height(), pixels.getvalue())
        with atomic_path(path) as partial:  # without the alpha channel, which says nothing: a tenth smaller
            image.convert("RGB").save(partial, format="png", optimize=True, dpi=(dpi, dpi))


def bytes_axis(axis, values):
    """Make an x or y axis one of kB, logarithmic where ``values`` (kB) span more than a decade."""
    low, high = np.min(values), np.max(values)
    if low <= 0:
        raise ValueError(f"Expected positive bytes. Received: {1000 * low:g}")
    if high > 10 * low:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
