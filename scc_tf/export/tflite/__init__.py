"""TFLite files with exactly the learned integers as weights."""

from scc_tf.export.tflite.exporter import export_tflite
from scc_tf.export.tflite.interpreter import run_tflite
from scc_tf.export.tflite.latency import measure_latency
from scc_tf.export.tflite.report import StoredKernel, TFLiteReport

__all__ = ["StoredKernel", "TFLiteReport", "export_tflite", "measure_latency", "run_tflite"]
