"""How fast is the coder, how close to the entropy, and what does a packed file cost?

python benchmarks/coding.py --rounds=5

Codes Gaussian codes of one 3x3 convolution, each channel with a scale of its own, and a LeNet-5 with 99 % zeros; then
packs and reads the networks of ``saved_models`` that the flags name. One core does all of it.

Prints the median of the rounds: processor time, weights per second, and the bits per weight beside the entropy of all
codes regardless of their channels. Every round checks that the codes come back.
"""

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
from absl import app, flags

import scc_tf
from scc_tf.atomic import atomic_path
from scc_tf.coding import Stream, entropy_bits
from scc_tf.export import packed_bytes

ROOT = Path(__file__).resolve().parents[1]

flags.DEFINE_integer("inputs", 128, "inputs, and as many channels, of the convolution", lower_bound=1)
flags.DEFINE_integer("rounds", 5, "measurements of each", lower_bound=1)
flags.DEFINE_list("models", ["mnist_safe", "cifar10_safe"], "networks to pack")
flags.DEFINE_string("out", str(ROOT / "experiments" / "results" / "coding.json"), "file of the record")


def convolution(inputs, seed=0):
    """A kernel of a 3x3 convolution with as many channels as inputs, and the scales of the channels."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(2, 5, inputs)
    half = 2.0 ** (bits - 1)
    kernel = np.clip(np.rint(rng.normal(scale=half / 2, size=(3, 3, inputs, inputs))), -half, half - 1)
    return [(kernel.astype(np.int32), -16 * bits)]


def sparse_kernels(seed=0):
    """The kernels of a sparse LeNet-5."""
    rng = np.random.default_rng(seed)
    kernels = []
    for shape in ((5, 5, 1, 20), (5, 5, 20, 50), (1, 1, 800, 500), (1, 1, 500, 10)):
        likely = rng.beta(0.1, 1, shape[3]) * rng.beta(0.1, 1, shape[2])[:, None]
        kernels.append((np.rint(rng.laplace(0, 1.5, shape) * (rng.random(shape) < 2 * likely)).astype(np.int32), None))
    return kernels


def code(kernels, data=None):
    """Write kernels, or read them in place."""
    stream = Stream(data)
    for kernel, scales in kernels:
        stream.kernel(kernel, stream.channels(kernel), scales)
    return stream.getvalue()


def measure(kernels, rounds):
    """A row of the table."""
    encoding, decoding = [], []
    weights = sum(kernel.size for kernel, _ in kernels)
    for _ in range(rounds):
        started = time.process_time()
        data = code(kernels)
        written = time.process_time()
        restored = [(np.zeros_like(kernel), scales) for kernel, scales in kernels]
        code(restored, data)
        decoding.append(time.process_time() - written)
        encoding.append(written - started)
        for (ours, _), (theirs, _) in zip(kernels, restored, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    return {
        "weights": weights,
        "bytes": len(data),
        "bits_per_weight": 8 * len(data) / weights,
        "entropy_bits_per_weight": sum(entropy_bits(kernel) for kernel, _ in kernels) / weights,
        "encoded_weights_per_second": weights / float(np.median(encoding)),
        "decoded_weights_per_second": weights / float(np.median(decoding)),
    }


def packing(name, rounds):
    """Processor time that packing and reading a network take, seconds."""
    path = ROOT / "saved_models" / f"{name}.scc"
    reading, writing = [], []
    for _ in range(rounds + 1):  # the first compiles, and reads what is known of layers
        started = time.process_time()
        model = scc_tf.load_packed(path)
        read = time.process_time()
        packed_bytes(model)
        writing.append(time.process_time() - read)
        reading.append(read - started)
    return {"packed_bytes": float(np.median(writing[1:])), "load_packed": float(np.median(reading[1:]))}


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
    cases = {"3x3 convolution": convolution(values.inputs), "sparse LeNet-5": sparse_kernels()}
    code(cases["sparse LeNet-5"])  # compiles
    rows = {name: measure(kernels, values.rounds) for name, kernels in cases.items()}
    show(rows)
    seconds = {name: packing(name, values.rounds) for name in values.models}
    for name, row in seconds.items():
        print(f"{name:<28}packed {row['packed_bytes']:.3f} s, read {row['load_packed']:.3f} s")
    record = {
        "command": f"python benchmarks/coding.py --inputs={values.inputs} --rounds={values.rounds}",
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"numba": importlib.metadata.version("numba"), "numpy": np.__version__},
        "rows": rows,
        "processor_seconds": seconds,
    }
    with atomic_path(values.out) as partial:
        partial.write_text(json.dumps(record, indent=1))
    print(f"Record: {values.out}")


if __name__ == "__main__":
    app.run(main)
