"""The one call: from a trained model and data to a small model, its report and its files."""

from scc_tf.compression.compress import compress
from scc_tf.compression.result import Compressed

__all__ = ["Compressed", "compress"]
