"""How the bits of a network with shared weights add up, layer by layer: the columns of the paper's tables."""

import dataclasses
import math

import keras
import numpy as np

from scc_tf.coding import huffman_bits
from scc_tf.layers import weight_sharing_layers

__all__ = ["huffman_parts", "layer_rates"]


_PARTS = ("weights", "indices", "tables")


def huffman_parts(model, file):
    """What a file of the network would be made of, bytes, if its kernels were Huffman coded as in the paper.

    Args:
        model: network with weight-sharing layers.
        file: `scc_tf.PackedReport` of its file.

    Returns:
        The numbers of ``file``, with ``code_bytes``, ``index_bytes`` and ``table_bytes`` of Huffman codes that were
        really written, and the sum as ``stored_bytes``.
    """
    coded = [
        huffman_bits(keras.ops.convert_to_numpy(kernel.indices))
        for layer in weight_sharing_layers(model)
        for kernel in layer.shared_kernels
    ]
    sizes = {part: sum(own[part] for own in coded) // 8 for part in _PARTS}
    parts = dataclasses.asdict(file) | {"code_bytes": sizes["weights"], "index_bytes": sizes["indices"]}
    stored = file.stored_bytes - file.code_bytes - file.index_bytes + sum(sizes.values())
    return parts | {"table_bytes": sizes["tables"], "stored_bytes": stored}


def layer_rates(model, original, file):
    """Bits per weight and index of every layer, before and after Huffman coding.

    Args:
        model: network with weight-sharing Dense and Conv2D layers.
        original: ``{layer name: weights before pruning}``.
        file: `scc_tf.PackedReport` of the network's file, for what the centroids take.

    Returns:
        ``{layer name: row}`` with ``weights`` (before pruning), ``clusters``, ``kept`` (per cent), ``weight_bits``,
        ``weight_bits_huffman``, ``index_bits``, ``index_bits_huffman`` (bits per stored entry, fillers among them),
        ``rate`` (per cent of the float32 weights, with fillers and 32 bits per centroid) and ``rate_huffman`` (what
        the layer takes Huffman coded: tables are counted, centroids are as in the file); and under ``"total"`` those of
        ``weights``, ``kept``, ``rate`` and ``rate_huffman``.

    Source: Han, Mao & Dally 2016, "Deep Compression" (arXiv 1510.00149), tables 2 and 3.
    """
    rows, sums = {}, np.zeros(4)
    for layer in weight_sharing_layers(model):
        (kernel,) = layer.shared_kernels
        indices = keras.ops.convert_to_numpy(kernel.indices)
        clusters, coded = int(kernel.centroids.shape[0]), huffman_bits(indices)
        weight_bits = math.ceil(math.log2(clusters + 1))  # a filler is a value of its own
        count = original[layer.name]
        fixed = coded["entries"] * (weight_bits + coded["gap_bits"]) + 32 * clusters
        stored = sum(coded[part] for part in _PARTS) + file.kernels[layer.name]["codebook"]
        left = int(np.count_nonzero(indices))
        sums += count, left, fixed, stored
        rows[layer.name] = {
            "clusters": clusters,
            **_shares(count, left, fixed, stored),
            "weight_bits": weight_bits,
            "weight_bits_huffman": coded["weights"] / max(coded["entries"], 1),
            "index_bits": coded["gap_bits"],
            "index_bits_huffman": coded["indices"] / max(coded["entries"], 1),
        }
    return {**rows, "total": _shares(*sums.tolist())}


def _shares(count, left, fixed, stored):
    return {
        "weights": int(count),
        "kept": 100 * left / count,
        "rate": 100 * fixed / (32 * count),
        "rate_huffman": 100 * stored / (32 * count),
    }
