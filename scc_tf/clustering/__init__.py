"""Filters that are alike become one: find where that can be done, decide how many stay, merge, cut."""

from scc_tf.clustering.budget import ClusterBudget
from scc_tf.clustering.chains import Chain, find_chains
from scc_tf.clustering.clustered import ClusterReport, cluster_filters, keep_filters
from scc_tf.clustering.costs import ChainCosts
from scc_tf.clustering.counts import chain_counts, stages

__all__ = [
    "Chain",
    "ChainCosts",
    "ClusterBudget",
    "ClusterReport",
    "chain_counts",
    "cluster_filters",
    "find_chains",
    "keep_filters",
    "stages",
]
