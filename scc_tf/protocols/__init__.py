"""Protocols of the literature, each a function of a model of yours and its data.

======================  ===============================================================================
`deep_compression`      prune the smallest weights in rounds, share the others, code them
`lottery`               which part of a network trains as well alone, and how honest it is then
`knapsack_pruning`      the edges that are worth the most under a budget of bytes
======================  ===============================================================================

They train with Adam and one cycle of the learning rate, on data in any form that `scc_tf.compress` takes, and leave the
model that is handed in untouched.
"""

from scc_tf.protocols.deep_compression import deep_compression
from scc_tf.protocols.knapsack import knapsack_pruning
from scc_tf.protocols.lottery import PROTOCOLS, LotteryReport, Ticket, lottery
from scc_tf.protocols.training import Training

__all__ = ["PROTOCOLS", "LotteryReport", "Ticket", "Training", "deep_compression", "knapsack_pruning", "lottery"]
