"""What the compiled models start from: their tables, weights and state, all integers, made by integer arithmetic."""

import functools

import numpy as np

from scc_tf.coding.mixing import kinds, model, symbols

__all__ = ["primed", "start", "start_symbols"]

_WEIGHTS = (  # first set, set after the last, per input in 1/100; about the means after the networks of MNIST
    (0, 2, (0, 50, 40)),  # a channel is live
    (2, 12, (0, 26, 28, 28, 27)),  # a row is
    (16, 64, (0, 10, 25, 5, -5, 12, 10, 8, 8, 8, 10, 10, 8, 10, 12)),  # an entry is not zero
    (80, 88, (0, 10, 10, 27, 15, 33, 8)),  # it is positive
    (88, 98, (0, 10, 10, 20, 10, 10, 18, 15, 35)),  # it is larger
    (98, 100, (0, 60)),  # length of an excess
    (100, 108, (0, 10, 10, 20, 10, 10, 18, 15, 35)),  # as before
)
_EXAMPLES = {  # numbers that the models have seen before the first of a stream
    kinds.FLAG: [0] * 6,
    kinds.STEP: [-12, 6, 18, -40, -24, 10, 4, -16, 33, -21],
    kinds.FRACTION: [4, 4, 5, 3, 4],
    kinds.FIXED: [0, 1, -2, 0, 3, -1, 0, -5, 1, 0, 2, 4, -1, -3, 0, 7, -2, 1, 0, -10],
    kinds.DROPPED: [20, 0, 19, 0],
    kinds.EXPONENT: [-1, 0, -2, -3, 1, 0, -1, 2, -1, -4, -2, 0],
}


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


@functools.cache
def _constant_symbols():
    state, tables = np.zeros(symbols.END, np.int64), _constant()
    state[: symbols.INPUTS] = tables[: model.REGISTERS]
    centers = np.arange(symbols.GRADES) * 2 * model.LIMIT // (symbols.GRADES - 1)
    maps = state[symbols.MAPS : symbols.SETS].reshape(-1, symbols.GRADES)
    maps[:] = np.minimum(tables[centers], 65535) << 16
    sets = state[symbols.SETS : symbols.SEEN].reshape(-1, symbols.STRIDE)
    for own, inputs, hundredths in (
        (sets[: symbols.TEXT_SETS], symbols.TEXT, (10, 10)),
        (sets[symbols.TEXT_SETS :], symbols.NUMBERS, (30, 0)),
    ):
        own[:, 1 : 2 * inputs + 1] = np.tile(np.array(hundredths) * 65536 // 100, inputs)
    state[symbols.SLOTS :] = 1 << 31
    nowhere = np.zeros(0, np.uint8)
    for kind, values in _EXAMPLES.items():
        symbols.code_numbers(np.array(values), kind, 0, state, start(nowhere, decoding=False), nowhere)
    return state


def start_symbols():
    """The state of texts and numbers before the first of them, int64 array."""
    return _constant_symbols().copy()


@functools.lru_cache(maxsize=4)
def primed(dictionary):
    """The state after a dictionary, bytes that end in a 0.

    Returns:
        ``(state, text, plain)`` as for `scc_tf.coding.mixing.symbols.code_text`. Not to be changed.
    """
    state, nowhere = start_symbols(), np.zeros(0, np.uint8)
    text = np.frombuffer(bytearray(dictionary), np.uint8)
    plain, place, memory = np.zeros_like(text), 0, start(nowhere, decoding=False)
    while place < text.size:
        place = symbols.code_text(text, place, text.size, plain, state, memory, nowhere)
    return state, text, plain
