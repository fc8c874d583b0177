"""Pruned kernels with shared weights in a stream: which entries are left, and the cluster of each.

A kernel is an int array of indices ``(height, width, inputs, channels)``: 0 is pruned, ``i`` from 1 to ``k`` is a
cluster. Two coders write it, and neither needs more than the shape and ``k`` to read it:

``"range"``
    adaptive frequencies with contexts, `scc_tf.coding.pruned`.
``"huffman"``
    Deep Compression's own: gaps with filler zeros in fields of a few bits, `scc_tf.coding.sparse`, and canonical
    Huffman codes of gaps and entries, `scc_tf.coding.huffman`. In the stream: the number of entries, fillers
    included; then for gaps and entries each the number of bytes (`write_count`) and the bytes as they are.

Source: Han, Mao & Dally 2016, "Deep Compression", sections 2 to 4 (arXiv 1510.00149).
"""

import numpy as np

from scc_tf.arguments import check_choice, check_count
from scc_tf.coding.huffman import huffman_decode, huffman_encode, huffman_table_bytes
from scc_tf.coding.numbers import read_count, write_count
from scc_tf.coding.pruned import read_pruned, write_pruned
from scc_tf.coding.sparse import from_gaps, to_gaps

__all__ = ["CODERS", "check_coder", "huffman_bits", "read_shared", "write_shared"]

CODERS = ("range", "huffman")
_GAP_BITS = range(3, 9)
_LONGEST_ENTRY = 10  # bytes: a code of 4, and in the table a symbol of 5 and its length


def check_coder(coder, gap_bits):
    """Raise ValueError unless a kernel can be written so."""
    check_choice("coder", coder, CODERS)
    if gap_bits is not None:
        check_count("gap_bits", gap_bits, 1, 32)


def write_shared(writer, indices, clusters, coder="range", gap_bits=None):
    """Write the indices of a kernel.

    Args:
        writer: `scc_tf.coding.Writer`.
        indices: int array ``(height, width, inputs, channels)``, from 0 (pruned) to ``clusters``.
        clusters: ``k``, from 1 to 65,535.
        coder: ``"range"`` or ``"huffman"``.
        gap_bits: for Huffman, width of a gap's field, bits; None takes what is smallest, from 3 to 8.

    Returns:
        What it takes, bits: ``{"weights": …, "indices": …, "tables": …}``. Weights are the clusters of the entries;
        indices their positions, or gaps; tables those of the Huffman codes, with the lengths of both parts.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> from scc_tf.coding import Reader, Writer
        >>> writer, indices = Writer(), np.array([0, 2, 0, 0, 1, 0]).reshape(1, 1, 3, 2)
        >>> write_shared(writer, indices, 2, "huffman")["indices"]
        8.0
        >>> read_shared(Reader(writer.getvalue()), (1, 1, 3, 2), 2, "huffman").ravel().tolist()
        [0, 2, 0, 0, 1, 0]
    """
    check_coder(coder, gap_bits)
    indices = np.asarray(indices)
    if indices.ndim != 4 or indices.dtype.kind not in "iub" or not 1 <= clusters <= 65535:
        raise ValueError(
            "Expected integer indices (height, width, inputs, channels) and 1 to 65,535 clusters. "
            f"Received: shape={indices.shape}, dtype={indices.dtype}, {clusters=}"
        )
    if indices.size and not 0 <= indices.min() <= indices.max() <= clusters:
        raise ValueError(f"Expected indices from 0 to {clusters}. Received: from {indices.min()} to {indices.max()}")
    start = writer.bits
    if coder == "range":
        weights = write_pruned(writer, indices, clusters)
        return {"weights": weights, "indices": writer.bits - start - weights, "tables": 0.0}
    entries, _, *parts = _huffman_parts(indices, gap_bits)
    writer.uniform(entries, indices.size + 1)
    for part in parts:
        write_count(writer, len(part))
        writer.uniform(np.frombuffer(part, np.uint8), 256)
    gaps, weights = (8.0 * (len(part) - huffman_table_bytes(part)) for part in parts)
    return {"weights": weights, "indices": gaps, "tables": writer.bits - start - gaps - weights}


def read_shared(reader, shape, clusters, coder="range"):
    """Read what `write_shared` wrote.

    Args:
        reader: `scc_tf.coding.Reader`.
        shape: shape of the kernel.
        clusters: as for `write_shared`.
        coder: as for `write_shared`.

    Returns:
        int32 array of that shape, from 0 to ``clusters``.

    Raises:
        ValueError: if the stream is damaged. Memory is bounded by ``shape``, whatever the stream holds.
    """
    if coder == "range":
        return read_pruned(reader, shape, clusters)
    size = int(np.prod(shape))
    entries = int(reader.uniform(1, size + 1)[0])
    gaps, weights = (huffman_decode(_read_bytes(reader, _LONGEST_ENTRY * entries + 16), entries) for _ in range(2))
    if not 0 <= weights.min(initial=0) <= weights.max(initial=0) <= clusters:
        raise ValueError(f"Expected indices from 0 to {clusters}. Received: from {weights.min()} to {weights.max()}")
    return from_gaps(gaps, weights, shape)


def _read_bytes(reader, most):
    length = read_count(reader)
    if length > most:
        raise ValueError(f"Expected at most {most} bytes of Huffman codes. Received: {length}")
    return reader.uniform(length, 256).astype(np.uint8).tobytes()


def _huffman_parts(indices, gap_bits):
    """``(entries, gap_bits, bytes of the gaps, bytes of the entries)``."""
    trials = []
    for bits in _GAP_BITS if gap_bits is None else [gap_bits]:
        gaps, entries = to_gaps(indices, bits)
        trials.append((gaps.size, bits, huffman_encode(gaps), huffman_encode(entries)))
    return min(trials, key=lambda trial: len(trial[2]) + len(trial[3]))


def huffman_bits(indices, gap_bits=None):
    """The columns of Deep Compression's tables for one kernel.

    Args:
        indices: as for `write_shared`.
        gap_bits: as for `write_shared`.

    Returns:
        ``{"gap_bits": …, "entries": …, "weight": …, "index": …}``: the width of a gap's field, bits; the number of
        entries, fillers included; and the average length of the Huffman codes of an entry and of a gap, bits, without
        their tables (in the paper "weight bits" and "index bits", "P+Q+H").

    The codes are padded to whole bytes.

    Source: arXiv 1510.00149, tables 2 and 3.

    Example:
        >>> huffman_bits(np.array([0, 2, 0, 0, 1, 0]).reshape(1, 1, 3, 2))
        {'gap_bits': 3, 'entries': 2, 'weight': 4.0, 'index': 4.0}
    """
    entries, bits, *parts = _huffman_parts(np.asarray(indices), gap_bits)
    index, weight = (8 * (len(p) - huffman_table_bytes(p)) / max(entries, 1) for p in parts)
    return {"gap_bits": bits, "entries": entries, "weight": weight, "index": index}
