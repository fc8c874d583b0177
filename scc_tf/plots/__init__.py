"""Figures of reports, records and safety sets: the only package that imports matplotlib."""

# ruff: noqa: E402 (a missing matplotlib is reported before any module needs it)
from scc_tf.extras import load

load("matplotlib", "plots")
from scc_tf.plots.channels import bits_per_layer, code_histograms
from scc_tf.plots.safety_set import safety_gallery
from scc_tf.plots.time_course import network_and_step_time, restoration_events, size_and_accuracy
from scc_tf.plots.two_models import compression_page

__all__ = [
    "bits_per_layer",
    "code_histograms",
    "compression_page",
    "network_and_step_time",
    "restoration_events",
    "safety_gallery",
    "size_and_accuracy",
]
