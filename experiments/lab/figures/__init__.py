"""Figures of records, drawn in the style of `scc_tf.plots`."""

from lab.figures.clusters import class_reports, cluster_correlations, cluster_tradeoff
from lab.figures.comparison import collapse_study, compare_rows
from lab.figures.compression import byte_budgets, compression_tradeoff, storage_breakdown
from lab.figures.course import compression_course
from lab.figures.front import size_accuracy_front
from lab.figures.lottery import lottery_calibration, lottery_curves, lottery_ood
from lab.figures.target import target_sizes
from lab.figures.training import training_curves

__all__ = [
    "byte_budgets",
    "class_reports",
    "cluster_correlations",
    "cluster_tradeoff",
    "collapse_study",
    "compare_rows",
    "compression_course",
    "compression_tradeoff",
    "lottery_calibration",
    "lottery_curves",
    "lottery_ood",
    "size_accuracy_front",
    "storage_breakdown",
    "target_sizes",
    "training_curves",
]
