"""Which coder makes the smaller file, and what would a choice per kernel save?

python benchmarks/coders.py

Takes the codes of every saved self-compressing network and codes them three ways: each kernel at the entropy of its
own codes, regardless of where they stand and without the tables that a decoder would need; by mixed contexts
(version 3 of the .scc format); and range-coded (version 1). A file is written the way that is smaller for all of its
kernels; the last column is what it would have if each kernel were coded in the smaller of its own two ways. The last
row is a network that does not exist, made to be hard: the sparsest kernels and the densest in one file.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags

import scc_tf
from scc_tf.atomic import atomic_path
from scc_tf.coding import Writer, entropy_bits
from scc_tf.coding.kernels import write_kernels
from scc_tf.coding.mixing import encode_mixed
from scc_tf.export.packed.arrangement import Arrangement
from scc_tf.export.packed.quantized import live_codes, quantized_kernels

ROOT = Path(__file__).resolve().parents[1]

flags.DEFINE_string("model_dir", str(ROOT / "saved_models"), "folder of packed networks")
flags.DEFINE_string("out", str(ROOT / "experiments" / "results" / "coders.json"), "file of the record")


def codes_of(path):
    """The codes of every kernel of a packed network, as its file has them; none for networks with shared weights."""
    return [Arrangement(*pair).coded(live_codes(*pair)) for pair in quantized_kernels(scc_tf.load_packed(path))]


def range_coded_bytes(kernels):
    """Bytes of version 1, all exponents being the same."""
    writer = Writer()
    exponent_bits = write_kernels(writer, kernels, [np.zeros(kernel.shape[-1], np.float32) for kernel in kernels])
    return len(writer.getvalue()) - round(exponent_bits / 8)


def measured(kernels):
    """A row of the table."""
    ways = (lambda some: len(encode_mixed(some)), range_coded_bytes)
    contexts, coded = (way(kernels) for way in ways)
    alone = np.array([[way([kernel]) for way in ways] for kernel in kernels])
    saved = alone.sum(axis=0).min() - alone.min(axis=1).sum()
    return {
        "weights": sum(kernel.size for kernel in kernels),
        "density": float(np.mean(np.concatenate([kernel.ravel() for kernel in kernels]) != 0)),
        "entropy_bytes": sum(map(entropy_bits, kernels)) / 8,
        "context_bytes": contexts,
        "range_coded_bytes": coded,
        "per_kernel_bytes": min(contexts, coded) - int(saved),
    }


def main(argv):
    """Measure, print, and write the record."""
    del argv
    paths = sorted(Path(flags.FLAGS.model_dir).glob("*.scc"))
    networks = {path.stem: codes for path in paths if (codes := codes_of(path))}
    rows = {name: measured(kernels) for name, kernels in networks.items()}
    sparsest, *_, densest = sorted(rows, key=lambda name: rows[name]["density"])
    rows[f"{sparsest} and {densest}"] = measured(networks[sparsest] + networks[densest])
    print(f"{'codes, bytes':<36}{'not 0':>8}{'entropy':>10}{'contexts':>10}{'range':>10}{'per kernel':>12}")
    for name, row in rows.items():
        sizes = [row[f"{way}_bytes"] for way in ("entropy", "context", "range_coded", "per_kernel")]
        cells = "".join(f"{size:>{width},.0f}" for size, width in zip(sizes, (10, 10, 10, 12), strict=True))
        print(f"{name:<36}{row['density']:>8.1%}{cells}")
    with atomic_path(flags.FLAGS.out) as partial:
        partial.write_text(json.dumps({"command": "python benchmarks/coders.py", "rows": rows}, indent=1))
    print(f"Record: {flags.FLAGS.out}")


if __name__ == "__main__":
    app.run(main)
