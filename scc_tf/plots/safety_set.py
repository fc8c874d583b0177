"""The safety set as a picture."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps

from scc_tf.plots.canvas import INK, drawing

__all__ = ["safety_gallery"]

_CRITERIA = {  # reason -> what it means, for the reader of the figure
    "attention": "the largest heat maps first",
    "uncertainty": "the smallest margins first",
    "diversity": "the k-means clusters in turn",
}
_HEAT = colormaps["inferno"]


def safety_gallery(
    safety_set, path: str | os.PathLike, per_reason: int = 10, class_names: Sequence[str] | None = None
) -> None:
    """Draw examples of a safety set: each image, and below it where the model looks.

    One band per reason, in the order of the set: the most attended, the least certain, the diverse. Above each
    image stand its label and its margin (probability of the first class minus that of the second, per cent).

    Args:
        safety_set: a `scc_tf.safety.SafetySet` of grey or colour images, in any range: the range of the whole set
            is mapped to black and white.
        path: the PNG file to write.
        per_reason: examples per reason, at least 1.
        class_names: a name for each label; by default the label itself.

    Raises:
        ValueError: if the set is empty, has neither 1 nor 3 colours, ``per_reason`` is not positive, or
            ``class_names`` has no name for a label.

    Example:
        >>> safety_gallery(safety_set, "gallery.png", class_names=list("0123456789"))  # doctest: +SKIP
    """
    if len(safety_set) == 0 or safety_set.images.ndim != 4 or safety_set.images.shape[-1] not in (1, 3):
        raise ValueError(f"Expected images (S, H, W, 1 or 3), S > 0. Received: shape={safety_set.images.shape}")
    if per_reason < 1:
        raise ValueError(f"Expected at least one example per reason. Received: per_reason={per_reason}")
    if class_names is not None and safety_set.labels.max() >= len(class_names):
        raise ValueError(
            f"Expected a name for every label up to {safety_set.labels.max()}. Received: {len(class_names)} class names"
        )
    rows = {reason: np.flatnonzero(safety_set.reasons == reason)[:per_reason] for reason in _CRITERIA}
    rows = {reason: row for reason, row in rows.items() if len(row)}
    columns = max(*map(len, rows.values()), 5)  # five at least: room for the headlines
    with drawing(path, 0.86 * columns + 0.3, 2.32 * len(rows), dpi=110) as figure:
        figure.set_layout_engine(None)  # the bands are laid out by hand
        bands = np.atleast_1d(figure.subfigures(len(rows), 1))
        for band, (reason, row) in zip(bands, rows.items(), strict=True):
            _draw_band(band, safety_set, row, columns, class_names)
            headline = {"y": 0.97, "va": "top", "fontsize": 10}
            band.text(0.02, s=reason.capitalize(), weight="bold", color=INK, **headline)
            total = np.sum(safety_set.reasons == reason)
            note = f"{total} examples, {_CRITERIA[reason]}; label and margin"
            band.text(0.98, s=note, ha="right", color="#666666", **headline)


def _draw_band(band, safety_set, row, columns, class_names):
    axes = band.subplots(2, columns, squeeze=False)
    band.subplots_adjust(left=0.02, right=0.98, top=0.765, bottom=0.03, wspace=0.07, hspace=0.07)
    for axis in axes.flat:
        axis.axis("off")
    low, high = float(safety_set.images.min()), float(safety_set.images.max())
    for column, example in enumerate(row):
        picture = (safety_set.images[example] - low) / max(high - low, np.finfo(np.float32).tiny)
        picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
        label = safety_set.labels[example]
        name = str(label) if class_names is None else class_names[label]
        gap = 100 * safety_set.margin[example]
        axes[0, column].imshow(_coarse(picture), interpolation="nearest")
        title = {"loc": "center", "weight": "normal", "fontsize": 8, "pad": 3, "linespacing": 1.05}
        axes[0, column].set_title(f"{name}\n{gap:.{int(gap < 9.95)}f} %", **title)
        overlay = _with_heat(picture, safety_set.heat_maps[example]) if safety_set.heat_maps.size else picture
        axes[1, column].imshow(_coarse(overlay), interpolation="nearest")


def _with_heat(picture, heat_map):
    """The picture in grey, coloured by the heat: more heat, more colour."""
    heat = heat_map[..., None] / 255
    grey = picture.mean(axis=-1, keepdims=True)
    return (1 - 0.75 * heat) * grey + 0.75 * heat * _HEAT(heat_map)[..., :3]


def _coarse(picture):
    """16 shades per colour: hardly a difference to the eye at this size, and a file shorter by a third or more."""
    return np.rint(15 * picture) / 15
