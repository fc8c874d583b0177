"""Any two models side by side: what compression did to the answers, the confidence, the size and the work."""

from scc_tf.evaluation.behaviour import Behaviour, Curves
from scc_tf.evaluation.comparison import evaluate_compression
from scc_tf.evaluation.footprint import Footprint
from scc_tf.evaluation.report import CompressionReport, ModelReport

__all__ = ["Behaviour", "CompressionReport", "Curves", "Footprint", "ModelReport", "evaluate_compression"]
