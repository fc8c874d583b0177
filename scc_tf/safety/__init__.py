"""The safety set: training examples that must not get worse while a network is compressed."""

from scc_tf.safety.contract import Contract
from scc_tf.safety.evaluation import check_safety_set, check_scorable, safety_accuracy
from scc_tf.safety.selection import SafetySet, select_safety_set

__all__ = ["Contract", "SafetySet", "check_safety_set", "check_scorable", "safety_accuracy", "select_safety_set"]
