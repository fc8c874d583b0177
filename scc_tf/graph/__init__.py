"""The graph of a functional Keras model: walked, copied with its state, and how its channels run."""

from scc_tf.graph.clone import clone_graph, copy_layer, copy_model
from scc_tf.graph.flow import Flow, KernelStep, RouteStep
from scc_tf.graph.probe import probe_inputs
from scc_tf.graph.producers import KernelNode, trace_kernels
from scc_tf.graph.state import LayerState, copy_running_state, copy_state, has_own_state, running_state, state_of
from scc_tf.graph.walk import check_functional, is_graph, shared_levels, walk

__all__ = [
    "Flow",
    "KernelNode",
    "KernelStep",
    "LayerState",
    "RouteStep",
    "check_functional",
    "clone_graph",
    "copy_layer",
    "copy_model",
    "copy_running_state",
    "copy_state",
    "has_own_state",
    "is_graph",
    "probe_inputs",
    "running_state",
    "shared_levels",
    "state_of",
    "trace_kernels",
    "walk",
]
