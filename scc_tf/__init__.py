"""Safety-driven self-compressing neural networks for Keras 3."""

from scc_tf import backend as _backend  # noqa: F401 (first: it refuses other backends than TensorFlow)

# isort: split
from scc_tf import callbacks, datasets, layers, metrics
from scc_tf.clustering import ClusterBudget, ClusterReport, cluster_filters
from scc_tf.compression import Compressed, compress
from scc_tf.conversion import ConversionReport, add_masks, self_compress, share_weights, to_plain
from scc_tf.evaluation import CompressionReport, evaluate_compression
from scc_tf.export import PackedReport, TFLiteReport, export_tflite, load_packed, save_packed
from scc_tf.finishing import finish, finish_to_bytes
from scc_tf.report import SizeReport, size_report
from scc_tf.safety import SafetySet, select_safety_set
from scc_tf.size import RateTerm, SizeTerm
from scc_tf.surgery import SurgeryReport, remove_channels, remove_dead_channels
from scc_tf.training import SelfCompressingModel

__all__ = [
    "ClusterBudget",
    "ClusterReport",
    "Compressed",
    "CompressionReport",
    "ConversionReport",
    "PackedReport",
    "RateTerm",
    "SafetySet",
    "SelfCompressingModel",
    "SizeReport",
    "SizeTerm",
    "SurgeryReport",
    "TFLiteReport",
    "add_masks",
    "callbacks",
    "cluster_filters",
    "compress",
    "datasets",
    "evaluate_compression",
    "export_tflite",
    "finish",
    "finish_to_bytes",
    "layers",
    "load_packed",
    "metrics",
    "remove_channels",
    "remove_dead_channels",
    "save_packed",
    "select_safety_set",
    "self_compress",
    "share_weights",
    "size_report",
    "to_plain",
]
__version__ = "0.1.0"
