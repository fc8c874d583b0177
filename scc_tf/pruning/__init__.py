"""What a network can do without: masks of weights, on plain NumPy arrays.

`magnitude` keeps large weights, one by one or in patterns; `neurons` keeps whole neurons and filters; `clusters` merges
filters that are alike; `knapsack` keeps the edges that are worth most under a budget of bytes; `single_neuron` reduces
one neuron.
"""

from scc_tf.pruning.clusters import first_members, fit_scales, group_filters, merge_members, sum_readers
from scc_tf.pruning.knapsack import edge_bits, exact_knapsack, fractional_bound, greedy_knapsack, reduce_layer
from scc_tf.pruning.magnitude import block_mask, global_masks, magnitude_mask, n_of_m_mask, quality_mask
from scc_tf.pruning.neurons import kept_count, largest_neurons, neuron_scores
from scc_tf.pruning.single_neuron import parse_neurons, reduce_neuron

__all__ = [
    "block_mask",
    "edge_bits",
    "exact_knapsack",
    "first_members",
    "fit_scales",
    "fractional_bound",
    "global_masks",
    "greedy_knapsack",
    "group_filters",
    "kept_count",
    "largest_neurons",
    "magnitude_mask",
    "merge_members",
    "n_of_m_mask",
    "neuron_scores",
    "parse_neurons",
    "quality_mask",
    "reduce_layer",
    "reduce_neuron",
    "sum_readers",
]
