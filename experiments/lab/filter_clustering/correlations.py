"""How accuracy and parameters go with the clusters of each stage, over a grid of settings."""

import itertools

import numpy as np
from scipy import stats

__all__ = ["FOUNDING", "GRID", "correlations"]

GRID = tuple(itertools.product((4, 8, 12), (8, 16, 24), (16, 32, 48)))  # the founding document's 27 points
COLUMNS = ("stage 1", "stage 2", "stage 3", "accuracy", "parameters")
FOUNDING = {  # of the founding document: each stage, and the parameters, with the accuracy
    "pearson": {"stage 1": 0.319270, "stage 2": 0.314795, "stage 3": 0.868530, "parameters": 0.938141},
    "spearman": {"stage 1": 0.361076, "stage 2": 0.308662, "stage 3": 0.856099, "parameters": 0.942613},
}


def correlations(clusters, accuracies, parameters):
    """Pearson's and Spearman's correlations of every pair of columns.

    Args:
        clusters: int ``(N, 3)``, one column per stage.
        accuracies: float ``(N,)``.
        parameters: int ``(N,)``.

    Returns:
        ``{"columns": names, "pearson": 5 lists of 5 float, "spearman": likewise}``; None where a column is constant.

    Raises:
        ValueError: if the columns differ in length, or have less than two rows.

    Source: the founding document's tables over the points of `GRID`.
    """
    clusters = np.asarray(clusters, float)
    if clusters.ndim != 2 or clusters.shape[1] != 3 or not len(clusters) == len(accuracies) == len(parameters) > 1:
        raise ValueError(
            "Expected clusters (N, 3) with N accuracies and parameters, N > 1. "
            f"Received: {clusters.shape}, {len(accuracies)} and {len(parameters)}"
        )
    table = np.column_stack([clusters, accuracies, parameters])
    return {
        "columns": list(COLUMNS),
        "pearson": _pairs(table),
        "spearman": _pairs(stats.rankdata(table, axis=0)),  # Spearman's is Pearson's of the ranks
    }


def _pairs(table):
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.corrcoef(table, rowvar=False)
    return [[None if np.isnan(value) else float(value) for value in row] for row in matrix]
