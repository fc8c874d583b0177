"""Figures from records, reports and safety sets: the only package that imports matplotlib."""

from scc_tf.plots.channels import bits_per_layer, code_histograms
from scc_tf.plots.clusters import class_reports, cluster_correlations, cluster_tradeoff
from scc_tf.plots.comparison import collapse_study, compare_rows
from scc_tf.plots.compression import byte_budgets, compression_tradeoff, storage_breakdown
from scc_tf.plots.front import size_accuracy_front
from scc_tf.plots.lottery import lottery_calibration, lottery_curves, lottery_ood
from scc_tf.plots.safety_set import safety_gallery
from scc_tf.plots.target import target_sizes
from scc_tf.plots.time_course import network_and_step_time, restoration_events, size_and_accuracy
from scc_tf.plots.training import training_curves
from scc_tf.plots.two_models import compression_page

__all__ = [
    "bits_per_layer",
    "byte_budgets",
    "class_reports",
    "cluster_correlations",
    "cluster_tradeoff",
    "code_histograms",
    "collapse_study",
    "compare_rows",
    "compression_page",
    "compression_tradeoff",
    "lottery_calibration",
    "lottery_curves",
    "lottery_ood",
    "network_and_step_time",
    "restoration_events",
    "safety_gallery",
    "size_accuracy_front",
    "size_and_accuracy",
    "storage_breakdown",
    "target_sizes",
    "training_curves",
]
