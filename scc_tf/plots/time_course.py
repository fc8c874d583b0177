"""One compression over its training steps: what its callbacks saw.

The functions take the lists that the callbacks keep: ``history`` of `scc_tf.callbacks.SizeLogger`, ``SafetyMonitor``
and ``ChannelRemoval``, ``events`` of ``KernelRestoration``.
"""

import os

import numpy as np
from matplotlib.ticker import MaxNLocator

from scc_tf.plots.canvas import BLUE, DASHED, GREY, INK, ORANGE, bytes_axis, drawing

__all__ = ["network_and_step_time", "restoration_events", "size_and_accuracy"]


def size_and_accuracy(sizes, checks, path: str | os.PathLike, events=(), reverted_to_step=None, title=None) -> None:
    """Draw integer bytes (left) and safety accuracy (right) against the training step.

    Restorations are ticks on the step axis. Where training went back to an earlier state, a line marks that step:
    what lies to its right was discarded.

    Args:
        sizes: ``SizeLogger.history``.
        checks: ``SafetyMonitor.history``.
        path: the PNG file to write.
        events: ``KernelRestoration.events``.
        reverted_to_step: ``KernelRestoration.safe_step`` where it has ``reverted``.
        title: of the figure.

    Raises:
        ValueError: if a history is empty, or holds a number that is not finite.

    Example:
        >>> size_and_accuracy(logger.history, watch.history, "course.png", events=keep.events)  # doctest: +SKIP
    """
    steps, integer_bytes = _columns(sizes, "step", "integer_bytes")
    checked, accuracy = _columns(checks, "step", "safety_accuracy")
    percent = 100 * accuracy
    with drawing(path, 7.4, 4.4) as figure:
        axes, right = _twins(figure, "integer bytes (kB)", "safety accuracy (%)")
        axes.plot(steps, integer_bytes / 1000, color=BLUE)
        bytes_axis(axes.yaxis, integer_bytes / 1000)
        axes.margins(x=0.02, y=0.08)
        right.plot(checked, percent, color=ORANGE)
        room = max(0.08 * np.ptp(percent), 0.5)  # a window at least one point high
        right.set_ylim(max(percent.min() - room, -1), min(percent.max() + room, 101))
        pad = _mark_reversion(right, reverted_to_step, checked[-1])
        if title:
            axes.set_title(title, pad=pad)
        if events:
            (at,) = _columns(events, "step")
            axes.plot(at, [0.025] * len(at), "|", ms=11, mew=2, color=INK, transform=axes.get_xaxis_transform())
            axes.set_title(f"|  {_count(events)}", loc="right", pad=pad, fontsize=11, weight="normal")


def restoration_events(checks, path: str | os.PathLike, events=(), threshold=None, reverted_to_step=None) -> None:
    """Draw the safety drop of every check against the step, and what each restoration gave back.

    Args:
        checks: ``SafetyMonitor.history``.
        path: the PNG file to write.
        events: ``KernelRestoration.events``.
        threshold: the tolerated drop, a fraction as ``KernelRestoration`` takes it; None draws none.
        reverted_to_step: as for `size_and_accuracy`.

    Raises:
        ValueError: as `size_and_accuracy`.

    Example:
        >>> restoration_events(watch.history, "events.png", keep.events, threshold=0.05)  # doctest: +SKIP
    """
    steps, drops = _columns(checks, "step", "safety_drop")
    points = 100 * drops
    with drawing(path, 7.4, 4.8 if events else 3.8) as figure:
        axes = figure.subplots(2, sharex=True, height_ratios=(3, 2)) if events else [figure.subplots()]
        above, title = axes[0], "No restoration was made"
        above.plot(steps, points, color=ORANGE, marker="o", markersize=3.5)
        above.set_ylabel("safety drop (points)")
        if threshold is not None:
            above.axhline(100 * threshold, color=INK, linewidth=1.4, linestyle=DASHED)
            above.annotate(
                f"tolerated: {100 * threshold:g} points",
                (0.01, 100 * threshold),
                xycoords=above.get_yaxis_transform(),
                xytext=(0, 3),
                textcoords="offset points",
            )
        above.set_ylim(0, 1.15 * max(points.max(), 100 * (threshold or 0), 0.5))
        above.margins(x=0.02)
        if events:
            title = _draw_events(*axes, events)
        above.set_title(title, pad=_mark_reversion(above, reverted_to_step, steps[-1]))
        axes[-1].set_xlabel("training step")


def _draw_events(above, below, events):
    """Mark the events on the drops, and count the channels that they restored; returns the headline."""
    steps, drops = _columns(events, "step", "safety_drop")
    counts = [sum(event["restored"].values()) for event in events]
    above.plot(steps, 100 * drops, "o", ms=9, mfc="none", mec=INK, mew=1.6)
    below.vlines(steps, 0, counts, color=BLUE, linewidth=4)
    if len(events) <= 12:
        for step, count in zip(steps, counts, strict=True):
            below.annotate(f"{count}", (step, count), xytext=(0, 3), textcoords="offset points", ha="center")
    below.set_ylim(0, 1.3 * max(*counts, 1))
    below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    below.set_ylabel("channels restored")
    return f"{_count(events)}, {sum(counts)} channels revived"


def network_and_step_time(looks, path: str | os.PathLike) -> None:
    """Draw the parameters of the network that is trained (left) and the time of a step (right) against the step.

    Args:
        looks: ``ChannelRemoval.history``.
        path: the PNG file to write.

    Raises:
        ValueError: if no step was timed, or a number is not finite.

    Example:
        >>> network_and_step_time(removal.history, "network.png")  # doctest: +SKIP
    """
    steps, parameters = _columns(looks, "step", "parameters")
    times, step_ms = _columns([look for look in looks if np.isfinite(look.get("step_ms", np.nan))], "step", "step_ms")
    with drawing(path, 7.4, 4.4) as figure:
        axes, right = _twins(figure, "parameters (thousands)", "time per step (ms, median)")
        axes.step(steps, parameters / 1000, where="post", color=BLUE)
        axes.set_ylim(0, 1.08 * parameters.max() / 1000)
        axes.margins(x=0.02)
        right.plot(times, step_ms, color=ORANGE, marker="o", markersize=3.5)
        right.set_ylim(0, 1.08 * step_ms.max())
        axes.set_title(f"A step takes {step_ms[0]:.0f} ms at first and {step_ms[-1]:.0f} ms in the end")


def _columns(rows, *names):
    """One float array per name, over the rows of a history."""
    table = np.array([[row[name] for name in names] for row in rows], float).reshape(-1, len(names)).T
    if not table.size or not np.isfinite(table).all():
        raise ValueError(f"Expected a history of finite {', '.join(names)}. Received: {len(rows)} entries {table}")
    return table


def _twins(figure, left, right):
    """Axes over the training step, with a blue scale on the left and an orange one on the right."""
    axes = figure.subplots()
    twin = axes.twinx()
    twin.grid(False)
    axes.set_xlabel("training step")
    axes.set_ylabel(left, color=BLUE)
    axes.tick_params(axis="y", colors=BLUE)
    twin.set_ylabel(right, color=ORANGE)
    twin.tick_params(axis="y", colors=ORANGE, length=0)
    return axes, twin


def _count(events):
    return f"{len(events)} restoration{'s' if len(events) > 1 else ''}"


def _mark_reversion(axes, step, last):
    """Shade what was discarded, with a label above the axes; returns the room that the title leaves for it."""
    if step is None:
        return 10
    axes.axvline(step, color=INK, linewidth=1.4, linestyle=DASHED)
    axes.axvspan(step, last, color=GREY, alpha=0.12, linewidth=0)
    side = "left" if step < 0.2 * last else "right" if step > 0.8 * last else "center"
    where = {"xycoords": axes.get_xaxis_transform(), "xytext": (0, 5), "textcoords": "offset points"}
    axes.annotate(f"went back to step {step:,.0f}", (step, 1), ha=side, **where)
    return 26
