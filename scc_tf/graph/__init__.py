"""The channels of a functional Keras model: how they run through its layers, and which kernels read them."""

from scc_tf.graph.clone import clone_graph, copy_layer, copy_model
from scc_tf.graph.kernels import KernelLayout, kernels_of
from scc_tf.graph.probe import probe_inputs
from scc_tf.graph.producers import KernelNode, trace_kernels
from scc_tf.graph.routes import Channels, channel_axis, is_elementwise, padding_place, route, spans_channels
from scc_tf.graph.state import (
    LayerState,
    copy_running_state,
    copy_state,
    has_own_state,
    own_variables,
    running_state,
    state_of,
)
from scc_tf.graph.walk import check_functional, is_graph, shared_levels, walk

__all__ = [
    "Channels",
    "KernelLayout",
    "KernelNode",
    "LayerState",
    "channel_axis",
    "check_functional",
    "clone_graph",
    "copy_layer",
    "copy_model",
    "copy_running_state",
    "copy_state",
    "has_own_state",
    "is_elementwise",
    "is_graph",
    "kernels_of",
    "own_variables",
    "padding_place",
    "probe_inputs",
    "route",
    "running_state",
    "shared_levels",
    "spans_channels",
    "state_of",
    "trace_kernels",
    "walk",
]
