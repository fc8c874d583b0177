"""Lossless coding of integer arrays, floats and texts, on plain NumPy arrays.

All that a file holds goes through one `Stream`, which mixes contexts to predict each bit: `mixer` is the machine,
`kernels` and `symbols` are its contexts, `arrays` puts floats and other dtypes into numbers.

Deep Compression's own stages stand beside it: `codebook` (weight sharing), `gaps` (between the weights that are left)
and `huffman`.
"""

from scc_tf.coding.arrays import check_range, code_array, code_floats
from scc_tf.coding.codebook import share_weights
from scc_tf.coding.gaps import from_gaps, to_gaps
from scc_tf.coding.huffman import huffman_bits, huffman_decode, huffman_encode
from scc_tf.coding.stream import LONGEST_TEXT, Stream, entropy_bits

__all__ = [
    "LONGEST_TEXT",
    "Stream",
    "check_range",
    "code_array",
    "code_floats",
    "entropy_bits",
    "from_gaps",
    "huffman_bits",
    "huffman_decode",
    "huffman_encode",
    "share_weights",
    "to_gaps",
]
