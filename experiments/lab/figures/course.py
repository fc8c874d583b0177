"""One compression of the main job in five figures."""

import numpy as np

from scc_tf import plots

__all__ = ["compression_course"]


def compression_course(row, path):
    """Draw the course of a compression, its bit depths and its codes.

    Args:
        row: record of `lab.self_compression.compress`.
        path: `pathlib.Path` that the names of the files begin with.
    """

    def file(name):
        return path.with_name(f"{path.name}_{name}.png")

    history, events, reverted = row["history"], row["events"], row["reverted_to_step"]
    title = f"{100 * row['test_accuracy']:.2f} % on test in a file of {row['size']['stored_bytes']:,.0f} bytes"
    codes = {name: np.repeat(*np.array(pairs).T) for name, pairs in row["code_counts"].items()}
    before = {name: row["bit_depths_before"][name] for name in row["bit_depths"]}
    plots.size_and_accuracy(history, history, file("size_accuracy"), events, reverted, title)
    plots.restoration_events(history, file("restorations"), events, row["threshold_points"] / 100, reverted)
    plots.network_and_step_time(row["network"], file("network"))
    plots.bits_per_layer(row["bit_depths"], file("bits"), before)
    plots.code_histograms(codes, file("codes"))
