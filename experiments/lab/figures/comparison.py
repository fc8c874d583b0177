"""Several runs in one picture: seeds, rows and settings side by side."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from lab.figures.fields import fields, numbers
from scc_tf.plots.canvas import BLUE, DASHED, GREY, INK, ORANGE, bytes_axis, drawing

__all__ = ["collapse_study", "compare_rows"]

LOOKS = {  # row -> colour, marker
    "float": (GREY, "s"),
    "unsafe": (ORANGE, "^"),
    "safe": (BLUE, "o"),
}


def collapse_study(record: dict, path: str | os.PathLike) -> None:
    """Draw how far safety accuracy falls, and how small the model gets, as gamma rises.

    Every seed is a dot, lines join the means. A hollow dot ended with an earlier, safe state put back.

    Args:
        record: ``threshold_points`` (percentage points), and under ``points`` one dictionary per run: ``gamma``,
            ``row`` ("unsafe" or "safe"), ``drop_points``, ``stored_bytes``; ``reverted_to_step`` may be left out.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing, a row has another name, or a gamma is not positive and finite.
    """
    threshold, (points,) = numbers([record], "threshold_points")[0, 0], fields(record, "points")
    gammas, drops, stored_bytes = numbers(points, "gamma", "drop_points", "stored_bytes")
    names = np.array([fields(point, "row")[0] for point in points])
    if unknown := set(names) - {"unsafe", "safe"}:
        raise ValueError(f"Expected the rows unsafe and safe. Received: {sorted(unknown)}")
    if gammas.min() <= 0:
        raise ValueError(f"Expected gamma > 0 (its axis is logarithmic). Received: gamma={gammas.min()}")
    reverted = np.array([point.get("reverted_to_step") is not None for point in points])
    with drawing(path, 7.4, 6.4) as figure:
        above, below = figure.subplots(2, sharex=True, height_ratios=(4, 3))
        for name in ("unsafe", "safe"):
            chosen = names == name
            if chosen.any():
                _draw_study(above, name, gammas[chosen], drops[chosen], reverted[chosen])
                _draw_study(below, name, gammas[chosen], stored_bytes[chosen] / 1000, reverted[chosen])
        _finish_study(above, below, threshold, gammas, stored_bytes / 1000)
        handles = [_handle(name, label=name) for name in ("unsafe", "safe") if name in names]
        if reverted.any():
            handles.append(
                Line2D([], [], ls="", marker="o", mfc="white", mec=INK, ms=7, label="went back to a safe step")
            )
        figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.5)


def _draw_study(axes, name, gammas, values, reverted):
    color, marker = LOOKS[name]
    settings = np.unique(gammas)
    axes.plot(settings, [values[gammas == gamma].mean() for gamma in settings], color=color, zorder=2)
    for hollow in (False, True):
        face = "white" if hollow else color
        chosen = reverted == hollow
        axes.plot(gammas[chosen], values[chosen], marker, color=color, mfc=face, ms=6.5, mew=1.5, zorder=3)


def _finish_study(above, below, threshold, gammas, kilobytes):
    above.axhline(threshold, color=INK, linewidth=1.4, linestyle=DASHED)
    above.annotate(
        f"tolerated: {threshold:g} points", (0.01, threshold), xycoords=above.get_yaxis_transform(),
        xytext=(0, 4), textcoords="offset points",
    )  # fmt: skip
    above.set_ylabel("safety drop (points)")
    bytes_axis(below.yaxis, kilobytes)
    below.set_ylabel("stored bytes (kB)")
    below.set_xscale("log")
    below.set_xlabel("gamma, the weight of the size term")
    settings = np.unique(gammas)
    if len(settings) <= 10:
        below.set_xticks(settings, [f"{gamma:g}" for gamma in settings])
        below.xaxis.set_minor_locator(NullLocator())


def compare_rows(records: Sequence[dict], path: str | os.PathLike) -> None:
    """Draw test accuracy against bytes: every seed a dot, the mean of a row a larger one.

    Args:
        records: one record of `lab.self_compression.run` per seed; of ``rows``, those of "float",
            "unsafe" and "safe" that are there are drawn.
        path: the PNG file to write.

    Raises:
        ValueError: if there are no records or none of these rows, or a row lacks its accuracy or its bytes.
    """
    rows = {name: _accuracy_and_bytes(records, name) for name in LOOKS}
    rows = {name: values for name, values in rows.items() if len(values)}
    if not rows:
        raise ValueError(f"Expected records with rows {', '.join(LOOKS)}. Received: {len(records)} records without")
    with drawing(path, 7.4, 4.6) as figure:
        axes = figure.subplots()
        for name, values in rows.items():
            color, marker = LOOKS[name]
            axes.plot(*values.mean(0), marker, color=color, ms=20, alpha=0.3, mew=0)
            axes.plot(*values.T, marker, color=color, ms=6, mec="white", mew=0.7, zorder=3)
        bytes_axis(axes.xaxis, np.concatenate(list(rows.values()))[:, 0])
        axes.margins(x=0.08, y=0.2)
        axes.set_xlabel("kB (float: float32 weights; the others: whole .scc files)")
        axes.set_ylabel("test accuracy (%)")
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        handles = [_handle(name, _summary(name, rows)) for name in rows]
        figure.legend(handles=handles, loc="outside upper left", handletextpad=0.3)


def _accuracy_and_bytes(records, name):
    """``(seeds, 2)``: kB and test accuracy in per cent."""
    rows = [rows[name] for record in records for rows in fields(record, "rows") if name in rows]
    if not rows:
        return np.empty((0, 2))
    (accuracy,) = numbers(rows, "test_accuracy")
    sizes = [size for row in rows for size in fields(row, "size")]
    (count,) = numbers(sizes, "float32_bytes" if name == "float" else "stored_bytes")
    return np.stack([count / 1000, 100 * accuracy], axis=1)


def _summary(name, rows):
    kilobytes, accuracy = rows[name].mean(0)
    text = f"{name}: {accuracy:.2f} % in {kilobytes:,.{int(kilobytes < 99.5)}f} kB"
    if name != "float" and "float" in rows:
        text += f", {rows['float'][:, 0].mean() / kilobytes:.3g} times less"
    return text


def _handle(name, label):
    color, marker = LOOKS[name]
    return Line2D([], [], ls="", marker=marker, color=color, ms=9, label=label)
