"""The two Gaussians that predict the entries of a kernel; see `scc_tf.coding.kernels`.

The mean of each follows the four neighbours in the filter, by least mean squares, one fast and one slowly. The
deviation is that of the channel so far, and of the kernel so far, scaled by what the exponents say; in the second one
times that of the row.
"""

import math

from scc_tf.coding.compiled import compiled
from scc_tf.coding.mixer import INNER, INPUTS, TAPS, log_odds, upper_tail

__all__ = ["above", "bounded", "end_channel", "expect", "follow", "predict", "start_channel", "start_kernel"]

MEAN, INVERSE, ENERGY, OWN_ENERGY = TAPS + 8, TAPS + 10, TAPS + 12, TAPS + 13
FAR = 1 << 24
LARGEST_TAP = 1 << 18  # weights of the neighbours are in 2^-16
FLOOR = 1 << 24  # nothing is impossible
PRIOR, ROW_PRIOR = 16, 40  # entries that the kernel counts in a channel, channels that the whole counts in a row


@compiled("int64(int64)", **INNER)
def bounded(value):
    """A code, if it is no outlier."""
    return min(max(value, -4096), 4096)


@compiled("void(int64, int64, int64, int64, int64[::1])", **INNER)
def expect(power, near, position, seen, memory):
    """Set both means of an entry, in 1/256, and the inverse of both deviations.

    Args:
        power: of its row, what `scc_tf.coding.kernels` counts.
        near: where the four neighbours are.
        position: entries of the channel before.
        seen: channels before.
        memory: the state.
    """
    for j in range(2):
        mean = 0
        for k in range(4):
            mean += memory[TAPS + 4 * j + k] * bounded(memory[near + k])
        memory[MEAN + j] = min(max(mean >> 8, -1 << 20), 1 << 20)
    own = (memory[OWN_ENERGY] + PRIOR * memory[ENERGY]) // (position + PRIOR) + 8
    row = (power + 256 * ROW_PRIOR) // (seen + ROW_PRIOR)
    memory[INVERSE] = (1 << 24) // int(math.sqrt(own << 8))
    memory[INVERSE + 1] = (1 << 24) // int(math.sqrt(max(own * row, 256)))


@compiled("int64(int64, int64, int64, int64[::1])", **INNER)
def above(code, side, k, memory):
    """Share of a Gaussian from a code on, on one side; 2^40 is all."""
    bound = min(max(256 * code - 128 - side * memory[MEAN + k], -FAR), FAR)
    return upper_tail(bound * memory[INVERSE + k] >> 16, memory)


@compiled("void(int64, int64, int64, int64, int64, int64[::1])", **INNER)
def predict(j, side, low, middle, high, memory):
    """Set inputs ``j`` and ``j + 1``: how likely a magnitude from ``low`` on, below ``high``, is not below ``middle``.

    ``high`` is 0 where there is no bound.
    """
    for k in range(2):
        beyond = above(high, side, k, memory) if high else 0
        part = above(middle, side, k, memory) - beyond + FLOOR
        whole = above(low, side, k, memory) - beyond + 2 * FLOOR
        memory[INPUTS + j + k] = log_odds((part << 16) // whole, memory)


@compiled("void(int64, int64, int64, int64[::1])", **INNER)
def follow(value, near, position, memory):
    """Move mean and deviation towards an entry."""
    energy = memory[OWN_ENERGY] // (position + 1) + 64
    for j in range(2):
        error = min(max((value << 8) - memory[MEAN + j], -1 << 20), 1 << 20)
        step = (error << 10 - 3 * j) // energy
        for k in range(4):
            tap = memory[TAPS + 4 * j + k] + step * bounded(memory[near + k])
            memory[TAPS + 4 * j + k] = min(max(tap, -LARGEST_TAP), LARGEST_TAP)
        if j:
            memory[OWN_ENERGY] += error * error >> 8


@compiled("void(int64[::1])", **INNER)
def start_kernel(memory):
    """Forget the deviation of the kernel before: that of weights is about 0.1, its square in 1/256 about 3."""
    memory[ENERGY] = 3


@compiled("void(int64, int64[::1], int64[::1])", **INNER)
def start_channel(change, roots, memory):
    """Forget the deviation of the channel before; squares of codes are now larger by ``2^(change / 8)``."""
    change = min(max(change, -127), 127)
    factor = roots[change & 7] << max(change >> 3, 0) >> max(-(change >> 3), 0)
    memory[OWN_ENERGY] = 0
    memory[ENERGY] = min(max(min(memory[ENERGY], 1 << 30) * factor >> 16, 8), 1 << 30)


@compiled("int64(int64, int64, int64[::1])", **INNER)
def end_channel(position, seen, memory):
    """Let the kernel's energy follow that of a channel, and return it."""
    energy = memory[OWN_ENERGY] // (position + 1) + 8
    memory[ENERGY] += (energy - memory[ENERGY]) // min(seen + 1, 16)
    return energy
