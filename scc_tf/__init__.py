"""Safety-driven self-compressing neural networks for Keras 3."""

from scc_tf import backend as _backend  # noqa: F401 (first: it refuses other backends than TensorFlow)

# isort: split
from scc_tf import callbacks, datasets, layers, metrics  # noqa: F401 (within reach, as the reports below)
from scc_tf.clustering import ClusterBudget, ClusterReport, cluster_filters  # noqa: F401
from scc_tf.compression import Compressed, compress  # noqa: F401
from scc_tf.conversion import ConversionReport, add_masks, self_compress, share_weights, to_plain  # noqa: F401
from scc_tf.evaluation import CompressionReport, evaluate_compression  # noqa: F401
from scc_tf.export import PackedReport, TFLiteReport, export_tflite, load_packed, save_packed  # noqa: F401
from scc_tf.finishing import finish, finish_to_bytes  # noqa: F401
from scc_tf.safety import SafetySet, select_safety_set
from scc_tf.size import RateTerm, SizeTerm  # noqa: F401
from scc_tf.size_report import SizeReport, size_report  # noqa: F401
from scc_tf.surgery import SurgeryReport, remove_channels, remove_dead_channels  # noqa: F401
from scc_tf.training import SelfCompressingModel  # noqa: F401

__all__ = [
    "SafetySet",
    "add_masks",
    "callbacks",
    "cluster_filters",
    "compress",
    "evaluate_compression",
    "export_tflite",
    "finish",
    "load_packed",
    "remove_channels",
    "save_packed",
    "select_safety_set",
    "self_compress",
    "share_weights",
    "size_report",
    "to_plain",
]
__version__ = "0.1.0"
