"""Adaptive, mixed binary context models for integer kernels: small files for sparse and for smooth weights.

A kernel is coded as binary decisions: which channels and rows (positions and inputs) are not all zeros, which entries
are not zero, their signs, their magnitudes in unary. Each decision has a dozen predictions, from neighbours in the
filter, the channels before, the density of row and column and their product; a small network that learns on the way
mixes them (`model`). Nothing is stored but the coded bits.
"""

from scc_tf.coding.mixing.clusters import centered, uncentered
from scc_tf.coding.mixing.codec import decode_mixed, encode_mixed

__all__ = ["centered", "decode_mixed", "encode_mixed", "uncentered"]
