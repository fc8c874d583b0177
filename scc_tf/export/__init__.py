"""Out of Keras: TFLite, packed files."""

from scc_tf.export.packed import PackedReport, load_packed, packed_bytes, save_packed
from scc_tf.export.tflite import StoredKernel, TFLiteReport, export_tflite, measure_latency, run_tflite

__all__ = [
    "PackedReport",
    "StoredKernel",
    "TFLiteReport",
    "export_tflite",
    "load_packed",
    "measure_latency",
    "packed_bytes",
    "run_tflite",
    "save_packed",
]
