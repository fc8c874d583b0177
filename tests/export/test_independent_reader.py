"""The format's page suffices to read a file: a reader that uses nothing but what it says finds what the golden files hold."""

from pathlib import Path

import numpy as np
import pytest
from independent_reader import Reader

GOLDEN = Path(__file__).parent / "golden"
DICTIONARY = Path(__file__).parents[2] / "scc_tf" / "export" / "architecture.dict"


def _quantized(reader):
    kernels = [reader.quantized(shape) for shape in ((3, 3, 2, 4), (64, 6), (6, 3))]
    return [reader.array((n,)) for n in (4, 6, 3, 4, 4, 4, 4)] + kernels


def _shared(reader):
    kernels = [*reader.shared((2, 3, 4), 5), *reader.shared((4, 7), 3)]
    return [reader.array((n,)) for n in (4, 7)] + kernels


def _masked(reader):
    kernel = reader.quantized((6, 5))
    stock = [*reader.masked((5, 4), "bfloat16"), *reader.masked((4, 4))]
    mask = reader.mask(kernel)
    biases = [reader.array((5,)), reader.array((4,), "bfloat16"), reader.array((4,))]
    return [*biases, kernel, *stock, mask]


def _stateful(reader):
    assert reader.array((3,)).tolist() == [0.5, 1.0, 3.0]  # the constant of the graph
    kernel = reader.quantized((4, 3))
    return [reader.array((3,)), kernel]


@pytest.mark.slow  # plain Python learns the dictionary
@pytest.mark.parametrize("read", [_quantized, _shared, _masked, _stateful])
def test_golden_files_are_read_bit_for_bit(read):
    name = read.__name__[1:]
    reader = Reader((GOLDEN / f"{name}.scc").read_bytes(), DICTIONARY.read_bytes())
    assert reader.architecture["name"] == name
    arrays = read(reader)
    assert reader.coder.is_at_end()
    with np.load(GOLDEN / "arrays.npz") as golden:
        expected = [golden[f"{name}_{place}"] for place in range(len(arrays))]
        assert f"{name}_{len(arrays)}" not in golden
    for ours, theirs in zip(arrays, expected, strict=True):
        ours = np.asarray(ours, np.float64)
        assert (ours.shape, ours.tobytes()) == (theirs.shape, theirs.tobytes())
