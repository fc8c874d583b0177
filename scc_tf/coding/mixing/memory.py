"""What the compiled model starts from: its tables, weights and state, all integers, made by integer arithmetic."""

import functools

import numpy as np

from scc_tf.coding.mixing import model

__all__ = ["start"]

_WEIGHTS = (  # first set, set after the last, per input in 1/100; about the means after the networks of MNIST
    (0, 2, (0, 50, 40)),  # a channel is live
    (2, 12, (0, 26, 28, 28, 27)),  # a row is
    (16, 64, (0, 10, 25, 5, -5, 12, 10, 8, 8, 8, 10, 10, 8, 10, 12)),  # an entry is not zero
    (80, 88, (0, 10, 10, 27, 15, 33, 8)),  # it is positive
    (88, 98, (0, 10, 10, 20, 10, 10, 18, 15, 35)),  # it is larger
    (98, 100, (0, 60)),  # length of an excess
    (100, 108, (0, 10, 10, 20, 10, 10, 18, 15, 35)),  # as before
)


def _squash():
    """``65536 / (1 + exp(-x / 256))`` for integers ``x`` from ``-LIMIT`` to ``LIMIT``, from 1 to 65,535."""
    one = 1 << 96
    ratio, term, n = 0, one, 0
    while term:  # exp(-1 / 256) by its series
        ratio += term if n % 2 == 0 else -term
        n += 1
        term //= 256 * n
    table = np.zeros(2 * model.LIMIT + 1, np.int64)
    power = one
    for x in range(model.LIMIT + 1):
        share = (one << 16) // (one + power)
        table[model.LIMIT + x] = min(share, 65535)
        table[model.LIMIT - x] = 65536 - share
        power = power * ratio >> 96
    return np.maximum(table, 1)


@functools.cache
def _constant():
    memory = np.zeros(model.END, np.int64)
    squash, counts = _squash(), np.arange(1024)
    memory[: squash.size] = squash
    stretch = np.searchsorted(squash, np.arange(1 << 16), side="right") - 1 - model.LIMIT
    memory[model.STRETCH : model.CONFIDENCE] = np.maximum(stretch, -model.LIMIT)
    memory[model.CONFIDENCE : model.RATE] = 512 * counts // (2 * counts + 3)
    memory[model.RATE : model.REGISTERS] = 655360 // (10 * counts + 14)
    sets = memory[model.WEIGHTS : model.SLOTS].reshape(model.SETS, model.STRIDE)
    for first, after, hundredths in _WEIGHTS:
        sets[first:after, : len(hundredths)] = np.array(hundredths) * 65536 // 100
    return memory


def start(data, decoding):
    """The memory before the first bit.

    Args:
        data: uint8 array, the bytes.
        decoding: bool.

    Returns:
        int64 array.
    """
    memory = _constant().copy()
    memory[model.HIGH] = (1 << 48) - 1
    if decoding:
        memory[model.DECODING] = 1
        memory[model.NEXT] = 6
        memory[model.CODE] = int.from_bytes(data[:6].tobytes().ljust(6, b"\0"), "big")
    return memory
