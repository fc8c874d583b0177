"""Training: task loss + gamma * Q + lambda * safety loss, under one GradientTape."""

from scc_tf.layers import self_compressing_layers
from scc_tf.training.format_optimizer import default_format_optimizer
from scc_tf.training.model import SelfCompressingModel

__all__ = ["SelfCompressingModel", "default_format_optimizer", "self_compressing_layers"]
