"""Lossless entropy coding of integer arrays and float vectors, on plain NumPy arrays.

`encode` and `decode` turn one int32 array into bytes and back. The other modules write many small arrays into one
stream, so that none of them pays for a header or an end of its own: `stream` (the range coder), `numbers` (flags,
integers, floats), `entropy` (large arrays with contexts) and `kernels` (the codes of convolutions).
"""

from scc_tf.coding.entropy import decode, encode
from scc_tf.coding.stream import Reader, Writer

__all__ = ["Reader", "Writer", "decode", "encode"]
