"""Lossless entropy coding of integer arrays and float vectors, on plain NumPy arrays.

`encode` and `decode` turn one int32 array into bytes and back. The other modules write many small arrays into one
stream, so that none of them pays for a header or an end of its own: `stream` (the range coder), `numbers` (flags,
integers, floats), `entropy` (large arrays with contexts) and `kernels` (the codes of convolutions).

Deep Compression's own stages stand beside them: `codebook` (weight sharing), `sparse` (gaps between the weights that
are left) and `huffman`. `shared` writes kernels whose weights are shared, with these or with `pruned` (contexts).
"""

from scc_tf.coding.codebook import centroid_gradients, share_weights, sharing_rate
from scc_tf.coding.entropy import decode, encode, entropy_bits
from scc_tf.coding.huffman import huffman_decode, huffman_encode, huffman_table_bytes
from scc_tf.coding.shared import huffman_bits, read_shared, write_shared
from scc_tf.coding.sparse import from_gaps, to_gaps
from scc_tf.coding.stream import Reader, Writer

__all__ = [
    "Reader",
    "Writer",
    "centroid_gradients",
    "decode",
    "encode",
    "entropy_bits",
    "from_gaps",
    "huffman_bits",
    "huffman_decode",
    "huffman_encode",
    "huffman_table_bytes",
    "read_shared",
    "share_weights",
    "sharing_rate",
    "to_gaps",
    "write_shared",
]
