"""A compressed network beside its float one: printed, drawn, and as a part of a record."""

import json

import scc_tf


def compared(before, after, data, ood, name, figure):
    """Compare a network, called ``name``, with the float one; write the page and return plain JSON without its curves.

    Args:
        before: the float network.
        after: the compressed network.
        data: `scc_tf.datasets.Dataset`.
        ood: `scc_tf.datasets.Split` out of distribution.
        name: of the compressed network.
        figure: `pathlib.Path` of the page.
    """
    report = scc_tf.evaluate_compression(before, after, data, ood, names=("float", name))
    print(report, flush=True)
    report.save_figure(figure)
    record = json.loads(report.to_json())
    for side in ("before", "after"):
        del record[side]["curves"]
    return record
