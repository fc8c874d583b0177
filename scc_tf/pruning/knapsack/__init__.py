"""The edges that are worth their cost: knapsacks of weights, and the founding document's reduction of one neuron."""

from scc_tf.pruning.knapsack.costs import edge_bits
from scc_tf.pruning.knapsack.neuron import Neuron, Reduction, parse_neurons, reduce_neuron
from scc_tf.pruning.knapsack.zero_one import exact_knapsack, fractional_bound, greedy_knapsack, reduce_layer

__all__ = [
    "Neuron",
    "Reduction",
    "edge_bits",
    "exact_knapsack",
    "fractional_bound",
    "greedy_knapsack",
    "parse_neurons",
    "reduce_layer",
    "reduce_neuron",
]
