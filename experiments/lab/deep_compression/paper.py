"""What the paper says about its networks: tables 1, 2 and 3 of Deep Compression.

The rates of the paper count codebooks and filler zeros, but neither Huffman tables nor biases; its totals of the bits
per weight lie outside the range of their own rows, so they are left out here.

Source: Han, Mao & Dally 2016, "Deep Compression" (arXiv 1510.00149), tables 1 to 3.
"""

__all__ = ["COLUMNS", "PAPER"]

# columns of a row: per cent of the weights that are left; bits of a weight before and after Huffman coding; bits of an
# index likewise; per cent of the float32 bytes before and after Huffman coding
COLUMNS = ("kept", "weight_bits", "weight_bits_huffman", "index_bits", "index_bits_huffman", "rate", "rate_huffman")

PAPER = {  # errors in per cent, bytes of the whole network
    "lenet_300_100": {
        "float_error": 1.64,
        "error": 1.58,
        "bytes": 27_000,
        "ratio": 40,
        "layers": {
            "dense1": (8, 6, 4.4, 5, 3.7, 3.1, 2.32),
            "dense2": (9, 6, 4.4, 5, 4.3, 3.8, 3.04),
            "head": (26, 6, 4.3, 5, 3.2, 15.7, 12.70),
        },
        "total": {"kept": 8, "rate": 3.1, "rate_huffman": 2.49},
    },
    "lenet_5": {
        "float_error": 0.80,
        "error": 0.74,
        "bytes": 44_000,
        "ratio": 39,
        "layers": {
            "conv1": (66, 8, 7.2, 5, 1.5, 78.5, 67.45),
            "conv2": (12, 8, 7.2, 5, 3.9, 6.0, 5.28),
            "dense1": (8, 5, 4.5, 5, 4.5, 2.7, 2.45),
            "head": (19, 5, 5.2, 5, 3.7, 6.9, 6.13),
        },
        "total": {"kept": 8, "rate": 3.05, "rate_huffman": 2.55},
    },
}
