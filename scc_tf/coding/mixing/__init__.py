"""Adaptive, mixed binary context models: small files for sparse and for smooth weights, and for what comes with them.

A kernel is coded as binary decisions: which channels and rows (positions and inputs) are not all zeros, which entries
are not zero, their signs, their magnitudes in unary. Each decision has a dozen predictions, from neighbours in the
filter, the channels before, the density of row and column and their product; a small network that learns on the way
mixes them (`model`). Texts and numbers are coded likewise (`symbols`), all in one stream (`coder`). Nothing is stored
but the coded bits.
"""

from scc_tf.coding.mixing.clusters import centered, uncentered
from scc_tf.coding.mixing.codec import decode_mixed, encode_mixed
from scc_tf.coding.mixing.coder import LONGEST_TEXT, MixedCoder
from scc_tf.coding.mixing.floats import code_array, code_floats

__all__ = [
    "LONGEST_TEXT",
    "MixedCoder",
    "centered",
    "code_array",
    "code_floats",
    "decode_mixed",
    "encode_mixed",
    "uncentered",
]
