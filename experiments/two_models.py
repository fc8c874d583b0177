"""A small network beside the one that it comes from: printed, drawn, and as a part of a record."""

import json

import scc_tf


def compared(before, after, data, ood, names, figure):
    """Compare two networks; print the report, write its page and return it as plain JSON without its curves.

    Args:
        before: the float or dense network.
        after: the compressed or pruned network.
        data: `scc_tf.datasets.Dataset`.
        ood: images out of distribution, as `scc_tf.evaluate_compression` takes them.
        names: of the two.
        figure: `pathlib.Path` of the page.
    """
    report = scc_tf.evaluate_compression(before, after, data, ood, names=names)
    print(report, flush=True)
    report.save_figure(figure)
    record = json.loads(report.to_json())
    for side in ("before", "after"):
        del record[side]["curves"]
    return record
