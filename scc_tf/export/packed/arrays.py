"""Lists of arrays of one dtype in a stream, bit for bit.

float32: in one piece or array by array, whichever is shorter, each as `scc_tf.coding.numbers.write_floats` writes it;
a flag says which if there are several. Other dtypes: array by array, byte by byte.
"""

import math

import numpy as np

from scc_tf.coding import Writer
from scc_tf.coding.numbers import read_floats, read_integers, write_floats, write_integers

__all__ = ["read_arrays", "write_arrays"]


def write_arrays(writer, arrays):
    """Write a list of arrays of one dtype, which is not empty.

    Args:
        writer: `scc_tf.coding.Writer`.
        arrays: list of arrays of any shapes.
    """
    if arrays[0].dtype != np.float32:
        for array in arrays:
            planes = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)
            for plane in planes.T:
                write_integers(writer, plane)
        return
    flat = [a.ravel() for a in arrays]
    together, apart = [np.concatenate(flat)], flat
    if len(flat) > 1:
        costs = []
        for parts in (together, apart):
            trial = Writer()
            for part in parts:
                write_floats(trial, part)
            costs.append(trial.bits)
        apart = apart if costs[1] < costs[0] else together
        writer.uniform(int(apart is flat), 2)
    for part in apart:
        write_floats(writer, part)


def read_arrays(reader, shapes, dtype):
    """Read what `write_arrays` wrote.

    Args:
        reader: `scc_tf.coding.Reader`.
        shapes: list of shapes.
        dtype: of all arrays.

    Returns:
        List of arrays.

    Raises:
        ValueError: if the stream is damaged.
    """
    sizes, dtype = [math.prod(shape) for shape in shapes], np.dtype(dtype)
    if dtype != np.float32:
        parts = []
        for size in sizes:
            planes = [_bytes(read_integers(reader, size)) for _ in range(dtype.itemsize)]
            parts.append(np.stack(planes, axis=-1).reshape(-1).view(dtype))
    elif len(sizes) > 1 and reader.uniform(1, 2)[0]:
        parts = [read_floats(reader, size) for size in sizes]
    else:
        parts = np.split(read_floats(reader, sum(sizes)), np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _bytes(values):
    if values.size and not 0 <= values.min() <= values.max() < 256:
        raise ValueError(f"Expected bytes. Received: integers from {values.min()} to {values.max()}")
    return values.astype(np.uint8)
