"""One compression over its training steps."""

import os

from matplotlib.ticker import MaxNLocator

from scc_tf.plots.canvas import BLUE, DASHED, GREY, INK, ORANGE, bytes_axis, drawing, fields, numbers

__all__ = ["network_and_step_time", "restoration_events", "size_and_accuracy"]

THRESHOLD_POINTS = 5.0  # of a row that does not say, as in `scc_tf.callbacks.KernelRestoration`


def size_and_accuracy(row: dict, path: str | os.PathLike) -> None:
    """Draw integer bytes (left) and safety accuracy (right) against the training step.

    Restorations are ticks on the step axis. Where training went back to an earlier state, a line marks that step:
    what lies to its right was discarded.

    Args:
        row: record of `lab.self_compression.compress`: ``history``, ``test_accuracy``, ``size``
            (``stored_bytes``);
            ``events`` and ``reverted_to_step`` may be left out.
        path: the PNG file to write.

    Raises:
        ValueError: if the record lacks a field, has no history, or holds a number that is not finite.
    """
    history, size = fields(row, "history", "size")
    steps, integer_bytes, accuracy = numbers(history, "step", "integer_bytes", "safety_accuracy")
    test_accuracy, file_bytes = numbers([row], "test_accuracy")[0, 0], numbers([size], "stored_bytes")[0, 0]
    kilobytes = integer_bytes / 1000
    with drawing(path, 7.4, 4.4) as figure:
        axes = figure.subplots()
        axes.plot(steps, kilobytes, color=BLUE)
        bytes_axis(axes.yaxis, kilobytes)
        axes.set_xlabel("training step")
        axes.set_ylabel("integer bytes (kB)", color=BLUE)
        axes.tick_params(axis="y", colors=BLUE)
        axes.margins(x=0.02, y=0.08)
        right = axes.twinx()
        right.plot(steps, 100 * accuracy, color=ORANGE)
        right.grid(False)
        right.set_ylabel("safety accuracy (%)", color=ORANGE)
        right.tick_params(axis="y", colors=ORANGE, length=0)
        right.set_ylim(*_accuracy_limits(100 * accuracy))
        reverted = row.get("reverted_to_step") is not None
        if reverted:
            _mark_reversion(right, row["reverted_to_step"], steps[-1])
        pad = 26 if reverted else 10
        axes.set_title(f"{100 * test_accuracy:.2f} % on test in a file of {file_bytes:,.0f} bytes", pad=pad)
        if events := row.get("events"):
            _mark_events(axes, events)
            axes.set_title(f"|  {_restorations(events)}", loc="right", pad=pad, fontsize=11, weight="normal")


def _accuracy_limits(percent):
    """A window with room around the accuracies, at least one point high."""
    room = max(0.08 * (percent.max() - percent.min()), 0.5)
    return max(percent.min() - room, -1), min(percent.max() + room, 101)


def _mark_events(axes, events):
    (steps,) = numbers(events, "step")
    axes.plot(steps, [0.025] * len(steps), "|", ms=11, mew=2, color=INK, transform=axes.get_xaxis_transform())


def _restorations(events):
    return f"{len(events)} restoration{'s' if len(events) > 1 else ''}"


def _mark_reversion(axes, step, last):
    """Shade what was discarded; the label stands above the axes, where no curve can cross it."""
    axes.axvline(step, color=INK, linewidth=1.4, linestyle=DASHED)
    axes.axvspan(step, last, color=GREY, alpha=0.12, linewidth=0)
    axes.annotate(
        f"went back to step {step:,.0f}",
        (step, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 5),
        textcoords="offset points",
        ha="left" if step < 0.2 * last else "right" if step > 0.8 * last else "center",
    )


def restoration_events(row: dict, path: str | os.PathLike) -> None:
    """Draw the safety drop of every check against the step, and what each restoration gave back.

    Args:
        row: record of `lab.self_compression.compress`: ``history``; ``events`` may be left out.
            With ``threshold_points`` (percentage points) the tolerated drop is drawn too; a row without it is taken
            to tolerate 5 points.
        path: the PNG file to write.

    Raises:
        ValueError: if the record lacks a field, has no history, or holds a number that is not finite.
    """
    (history,) = fields(row, "history")
    steps, drops = numbers(history, "step", "safety_drop")
    events, threshold = row.get("events") or (), row.get("threshold_points")
    points = 100 * drops
    with drawing(path, 7.4, 4.8 if events else 3.8) as figure:
        below = None
        if events:
            axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
        else:
            axes = figure.subplots()
        axes.plot(steps, points, color=ORANGE, marker="o", markersize=3.5)
        axes.set_ylabel("safety drop (points)")
        if threshold is not None:
            axes.axhline(threshold, color=INK, linewidth=1.4, linestyle=DASHED)
            axes.annotate(
                f"tolerated: {threshold:g} points", (0.01, threshold), xycoords=axes.get_yaxis_transform(),
                xytext=(0, 3), textcoords="offset points",
            )  # fmt: skip
        axes.set_ylim(0, 1.15 * max(points.max(), threshold or 0, 0.5))
        axes.margins(x=0.02)
        if events:
            title = _draw_events(axes, below, events)
        else:
            needed = points.max() > (THRESHOLD_POINTS if threshold is None else threshold)
            title = "No restoration was made" if needed else "No restoration was needed"
        reverted = row.get("reverted_to_step") is not None
        if reverted:
            _mark_reversion(axes, row["reverted_to_step"], steps[-1])
        axes.set_title(title, pad=26 if reverted else 10)
        (below or axes).set_xlabel("training step")


def _draw_events(axes, below, events):
    """Mark the events on the drops, and count the channels that they restored; returns the headline."""
    steps, drops = numbers(events, "step", "safety_drop")
    (restored,) = zip(*(fields(event, "restored") for event in events), strict=True)
    counts = [sum(kernels.values()) for kernels in restored]
    axes.plot(steps, 100 * drops, "o", ms=9, mfc="none", mec=INK, mew=1.6)
    below.vlines(steps, 0, counts, color=BLUE, linewidth=4)
    if len(events) <= 12:
        for step, count in zip(steps, counts, strict=True):
            below.annotate(f"{count}", (step, count), xytext=(0, 3), textcoords="offset points", ha="center")
    below.set_ylim(0, 1.3 * max(*counts, 1))
    below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    below.set_ylabel("channels restored")
    return f"{_restorations(events)}, {sum(counts)} channels revived"


def network_and_step_time(row: dict, path: str | os.PathLike) -> None:
    """Draw the parameters of the network that is trained (left) and the time of a step (right) against the step.

    Args:
        row: record of `lab.self_compression.compress`: ``network``, with ``step`` and ``parameters`` in
            every entry and ``step_ms`` (milliseconds) in those that were timed.
        path: the PNG file to write.

    Raises:
        ValueError: if the record lacks a field, has no timed entry, or holds a number that is not finite.
    """
    (network,) = fields(row, "network")
    steps, parameters = numbers(network, "step", "parameters")
    timed = [entry for entry in network if "step_ms" in entry]
    times, step_ms = numbers(timed, "step", "step_ms")
    with drawing(path, 7.4, 4.4) as figure:
        axes = figure.subplots()
        axes.step(steps, parameters / 1000, where="post", color=BLUE)
        axes.set_ylim(0, 1.08 * parameters.max() / 1000)
        axes.set_xlabel("training step")
        axes.set_ylabel("parameters (thousands)", color=BLUE)
        axes.tick_params(axis="y", colors=BLUE)
        axes.margins(x=0.02)
        right = axes.twinx()
        right.plot(times, step_ms, color=ORANGE, marker="o", markersize=3.5)
        right.grid(False)
        right.set_ylim(0, 1.08 * step_ms.max())
        right.set_ylabel("time per step (ms, median)", color=ORANGE)
        right.tick_params(axis="y", colors=ORANGE, length=0)
        axes.set_title(f"A step takes {step_ms[0]:.0f} ms at first and {step_ms[-1]:.0f} ms in the end")
