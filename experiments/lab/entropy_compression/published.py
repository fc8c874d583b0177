"""Published sizes of the same networks on MNIST, bytes, and their test errors in per cent.

What is counted differs: bit streams of the weights (Oktay et al.), index streams (MIRACLE), files (Paras), codebooks
and indices without Huffman tables (Deep Compression), learned bits without scales (the notebook). None counts the
description of the network.
"""

__all__ = ["PUBLISHED"]

PUBLISHED = {  # model -> (name, bytes, test error)
    "lenet_300_100": (
        ("Deep Compression", 27_000, 1.58),  # Han et al. 2016, arXiv 1510.00149, table 1
        ("Bayesian Compression", 18_200, 1.8),  # Louizos et al. 2017, as quoted by Oktay et al. 2020, table 1
        ("Sparse Variational Dropout", 9_380, 1.8),  # Molchanov et al. 2017, likewise
        ("Entropy penalty", 8_560, 1.9),  # Oktay et al. 2020, arXiv 1906.06624, table 1
    ),
    "lenet_5": (
        ("Deep Compression", 44_000, 0.74),
        ("Sparse Variational Dropout", 4_710, 1.0),
        ("Entropy penalty", 2_840, 0.9),
        ("Bayesian Compression", 2_230, 1.0),
        ("MIRACLE", 1_520, 0.96),  # Havasi et al. 2019, arXiv 1810.00440
        ("MIRACLE, Paras", 1_694, 0.83),  # files in a public repository
        ("MIRACLE, Paras", 1_140, 0.98),
    ),
    "mnist_cnn": (
        ("Self-compression notebook", 18_075, 1.80),  # github.com/geohot/ai-notebooks; scales not counted
    ),
}
