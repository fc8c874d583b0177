"""How fast is the entropy coder, and how close to the entropy?

python benchmarks/coding.py --weights=4000000 --rounds=5

Encodes and decodes Laplacian codes of 2 to 4 bits, each channel with its own bit depth as context, as in a large
self-compressing network; without contexts too, for comparison; Gaussian codes of one 3x3 convolution, with the
predictive coder of small kernels, whose encoder searches for the best parameters; and a LeNet-5 with 99 % zeros, with
mixed contexts. One core does all of it.

Prints the median speed of the rounds, in weights per second and in bytes of the float32 weights that the codes stand
for, and the bits per weight beside the entropy of all codes regardless of their channels. Every round checks that the
codes come back.
"""

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from scc_tf.atomic import atomic_path
from scc_tf.coding import Reader, Writer, decode, encode, entropy_bits
from scc_tf.coding.kernels import read_kernels, write_kernels
from scc_tf.coding.mixing import decode_mixed, encode_mixed

ROOT = Path(__file__).resolve().parents[1]

flags.DEFINE_integer("weights", 4_000_000, "codes of the large array", lower_bound=512)
flags.DEFINE_integer("channels", 512, "channels of the large array", lower_bound=1)
flags.DEFINE_integer("inputs", 128, "inputs, and as many channels, of the convolution", lower_bound=1)
flags.DEFINE_integer("rounds", 5, "measurements of each", lower_bound=1)
flags.DEFINE_string("out", str(ROOT / "experiments" / "results" / "coding.json"), "file of the record")


def laplacian_codes(weights, channels, seed=0):
    """Codes ``(channels, weights / channels)`` and the bit depth of each, in the same shape."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(2, 5, channels)[:, None]
    codes = np.rint(rng.laplace(scale=2.0**bits / 8, size=(channels, weights // channels)))
    codes = np.clip(codes, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1).astype(np.int32)
    return codes, np.broadcast_to(bits, codes.shape)


def convolution(inputs, seed=0):
    """Codes of a 3x3 convolution with as many channels as inputs, and their encoder and decoder."""
    rng = np.random.default_rng(seed)
    half = 2.0 ** (rng.integers(2, 5, inputs) - 1)
    kernel = np.clip(np.rint(rng.normal(scale=half / 2, size=(3, 3, inputs, inputs))), -half, half - 1).astype(np.int32)
    exponents = np.zeros(inputs, np.float32)

    def write():
        writer = Writer()
        write_kernels(writer, [kernel], [exponents])
        return writer.getvalue()

    return kernel, write, lambda data: read_kernels(Reader(data), [kernel.shape])[0][0]


def sparse_kernels(seed=0):
    """All codes of a sparse LeNet-5 in one array, and their encoder and decoder."""
    rng = np.random.default_rng(seed)
    kernels = []
    for shape in ((5, 5, 1, 20), (5, 5, 20, 50), (1, 1, 800, 500), (1, 1, 500, 10)):
        likely = rng.beta(0.1, 1, shape[3]) * rng.beta(0.1, 1, shape[2])[:, None]
        kernels.append(np.rint(rng.laplace(0, 1.5, shape) * (rng.random(shape) < 2 * likely)).astype(np.int32))

    def joined(parts):
        return np.concatenate([part.ravel() for part in parts])

    shapes = [kernel.shape for kernel in kernels]
    return joined(kernels), lambda: encode_mixed(kernels), lambda data: joined(decode_mixed(data, shapes))


def measure(codes, write, read, rounds):
    """A row of the table."""
    encoding, decoding = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        data = write()
        written = time.perf_counter()
        restored = read(data)
        decoding.append(time.perf_counter() - written)
        encoding.append(written - started)
        np.testing.assert_array_equal(restored, codes)
    return {
        "weights": codes.size,
        "bytes": len(data),
        "bits_per_weight": 8 * len(data) / codes.size,
        "entropy_bits_per_weight": entropy_bits(codes) / codes.size,
        "encoded_weights_per_second": codes.size / float(np.median(encoding)),
        "decoded_weights_per_second": codes.size / float(np.median(decoding)),
    }


def show(rows):
    """Print the table."""
    print(f"{'':<28}{'encode':>22}{'decode':>22}{'bits per weight':>18}{'entropy':>10}")
    for name, row in rows.items():
        speeds = [row[f"{way}_weights_per_second"] for way in ("encoded", "decoded")]
        cells = "".join(f"{v / 1e6:>7.1f} M/s {4 * v / 1e6:>6.0f} MB/s" for v in speeds)
        print(f"{name:<28}{cells}{row['bits_per_weight']:>18.4f}{row['entropy_bits_per_weight']:>10.4f}")


def main(argv):
    """Measure, print, and write the record."""
    del argv
    values = flags.FLAGS
    codes, bits = laplacian_codes(values.weights, values.channels)
    kernel, write, read = convolution(values.inputs)
    cases = {
        "bit depths as contexts": (codes, lambda: encode(codes, bits), lambda d: decode(d, codes.shape, bits)),
        "no contexts": (codes, lambda: encode(codes), lambda d: decode(d, codes.shape)),
        "predictive, 3x3 convolution": (kernel, write, read),
        "mixed contexts, LeNet-5": sparse_kernels(),
    }
    rows = {name: measure(*case, values.rounds) for name, case in cases.items()}
    show(rows)
    record = {
        "command": f"python benchmarks/coding.py --weights={values.weights} --channels={values.channels} "
        f"--inputs={values.inputs} --rounds={values.rounds}",
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"constriction": importlib.metadata.version("constriction"), "numpy": np.__version__},
        "rows": rows,
    }
    with atomic_path(values.out) as partial:
        partial.write_text(json.dumps(record, indent=1))
    print(f"Record: {values.out}")


if __name__ == "__main__":
    app.run(main)
