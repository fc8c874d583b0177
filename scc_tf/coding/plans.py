"""How a kernel is written, chosen by what costs least; see `scc_tf.coding.kernels` for the format.

Nothing here is needed for reading but `Plan`, `predict` and `mean_of`, which are integer arithmetic. The choices
themselves are made with floats: they are in the stream.
"""

import dataclasses

import numpy as np

from scc_tf.coding.entropy import write_symbols
from scc_tf.coding.gaussian import SCALES, Normal
from scc_tf.coding.stream import Writer

__all__ = [
    "SIDES",
    "WEIGHTS",
    "WIDEST",
    "Plan",
    "check_side",
    "guess_of",
    "likely_sides",
    "make_plan",
    "may_be_flat",
    "mean_of",
    "middle",
    "predict",
]

SIDES = 32  # a flattened image is at most 31 x 31
_WEIGHT_BITS = 5
WEIGHTS = 2 << _WEIGHT_BITS  # weights of neighbours go from -1 to 31/32
WIDEST = 512  # codes of a channel that is predicted are at most this far apart
_LARGEST = 1 << 20  # larger kernels are written with frequencies
_SAMPLE = 1 << 15  # codes that a prediction is chosen on
_WINDOW = 4  # prediction makes scales smaller by less than a factor of 2
_BOUNDS_BITS = 7.0  # about what two bounds cost
_SURPRISE_BITS = 0.7  # about what a scale costs per step away from its guess


@dataclasses.dataclass
class Plan:
    """How one kernel is written.

    Attributes:
        shape: of the kernel.
        live: bool ``(channels,)``: has a code other than 0.
        side: the kernel is read as ``(side, side, inputs / side**2, channels)``; 1 leaves it.
        inputs: bool, which of these inputs a live channel reads.
        gaussian: whether it is predicted, or else written with frequencies.
        scale, clipped, low, high: per live channel.
        guess: scale that the exponent of each live channel suggests, less what is common to the kernel.
        weights: int ``(4,)``, of the neighbours.
        codes: the codes that are left, ``(h, w, I, C)``.
    """

    shape: tuple
    live: np.ndarray
    side: int = 1
    inputs: np.ndarray | None = None
    gaussian: bool = True
    guess: np.ndarray | None = None
    scale: np.ndarray | None = None
    clipped: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    weights: np.ndarray | None = None
    codes: np.ndarray | None = None

    @property
    def channels(self):
        """Live channels."""
        return int(self.live.sum())

    @property
    def may_be_flat(self):
        """Whether the inputs may be those of an image that was flattened."""
        return may_be_flat(self.shape)

    def split(self):
        """The shape in which the kernel is read, all inputs and the live channels."""
        height, width, inputs, _ = self.shape
        return height * self.side, width * self.side, inputs // self.side**2, self.channels


def guess_of(exponents):
    """Minus the exponents in units of a scale, 1/4; a product with a power of two, so exact but for the rounding."""
    return -np.rint(4 * np.clip(exponents, -1000, 1000)).astype(np.int64)


def middle(values):
    """The median of an int array, one of its values."""
    return int(np.sort(values)[len(values) // 2])


def _neighbours(codes, row, column):
    """The codes ``(I, C)`` left, above, above left and above right; those outside are taken from within."""
    left = codes[row, column - 1] if column else codes[row - 1, column]
    above = codes[row - 1, column] if row else left
    above_left = codes[row - 1, column - 1] if row and column else above
    above_right = codes[row - 1, column + 1] if row and column + 1 < codes.shape[1] else above
    return left, above, above_left, above_right


def predict(codes, weights, row, column):
    """The weighted sum of the neighbours, int64 ``(I, C)``; 0 at the first position."""
    if not row and not column:
        return np.zeros(codes.shape[2:], np.int64)
    return sum(w * n for w, n in zip(weights.tolist(), _neighbours(codes, row, column), strict=True))


def mean_of(predicted, inverse_rms):
    """From weighted codes to units of ``sigma / 1024``: weights are over 32, ``inverse_rms`` over 2^16."""
    return predicted * inverse_rms >> (16 + _WEIGHT_BITS - 10)


def make_plan(kernel, exponents):
    """Choose how to write a kernel.

    Args:
        kernel: int64 array ``(height, width, inputs, channels)``.
        exponents: float32 array ``(channels,)``.

    Returns:
        `Plan`.
    """
    plan = Plan(kernel.shape, kernel.any(axis=(0, 1, 2)))
    plan.guess = guess_of(np.asarray(exponents)[plan.live])
    if not plan.channels:
        return plan
    kernel = kernel[..., plan.live]
    trials = []
    for side in likely_sides(kernel):
        trial = dataclasses.replace(plan, side=side)
        codes = kernel.reshape(trial.split())
        trial.inputs = codes.any(axis=(0, 1, 3))
        trial.codes = codes[:, :, trial.inputs]
        trials.append((_fit(trial), trial))
    return min(trials, key=lambda t: t[0])[1]


def may_be_flat(shape):
    """Whether the inputs of a kernel of this shape may be those of an image that was flattened."""
    return shape[:2] == (1, 1) and shape[2] > 3


def check_side(side, inputs):
    """Raise ValueError unless so many inputs can be those of an image of that side."""
    if not side or inputs % side**2:
        raise ValueError(f"Expected a side whose square divides {inputs}. Received: {side}")


def likely_sides(kernel):
    """1, and the side of the square image whose neighbours are most alike, where there may be one.

    Args:
        kernel: int array ``(height, width, inputs, channels)``, none of the channels all 0.
    """
    if not may_be_flat(kernel.shape):
        return [1]
    flat = kernel[0, 0] / np.sqrt(np.mean(kernel[0, 0] ** 2.0, axis=0))
    alike = {}
    for side in range(2, SIDES):
        if flat.shape[0] % side**2 == 0:
            image = flat.reshape(side, side, -1, flat.shape[1])
            alike[side] = np.mean(image[:, 1:] * image[:, :-1]) + np.mean(image[1:] * image[:-1])
    return [1, max(alike, key=alike.get)] if alike else [1]


def _fit(plan):
    """Choose everything else about a plan; returns its cost in bits."""
    rms = np.sqrt(np.mean(plan.codes**2.0, axis=(0, 1, 2)))
    plain = np.clip(np.rint(4 * np.log2(rms) + 12), 0, SCALES - 1).astype(np.int64)
    trial = Writer()
    write_symbols(trial, plan.codes, np.broadcast_to(plain, plan.codes.shape))
    bits = _fit_gaussian(plan)
    plan.gaussian = bits < trial.bits
    if not plan.gaussian:
        plan.scale = plain
    return min(bits, trial.bits)


def _fit_gaussian(plan):
    """Choose scales, bounds and weights; returns the cost in bits, infinite if the codes do not fit."""
    codes = plan.codes.reshape(-1, plan.channels)
    low, high = codes.min(axis=0), codes.max(axis=0)
    if (high - low).max() > WIDEST or plan.codes.size > _LARGEST:
        return np.inf
    bounds = _Bounds(low, high)
    values = np.arange(low.min(), high.max() + 1)[:, None]
    places = (codes - low.min()) * plan.channels + np.arange(plan.channels)
    counts = np.bincount(places.ravel(), minlength=values.size * plan.channels).reshape(values.size, -1)
    costs = np.full((SCALES, 2, plan.channels), np.inf)
    for scale in range(SCALES):
        for clipped in (False, True):
            costs[scale, int(clipped)] = bounds.cost(np.full(plan.channels, scale), clipped, values, counts)
    _choose(plan, costs, bounds, None)
    preferred = plan.guess + middle(plan.scale - plan.guess)
    plan.weights = np.zeros(4, np.int64)
    bits = _choose(plan, costs, bounds, preferred)
    return bits if plan.codes[..., 0, 0].size == 1 else _fit_prediction(plan, bits, bounds, preferred)


def _fit_prediction(plan, bits, bounds, preferred):
    """Predict from the neighbours if that costs less than ``bits``; returns what is the less."""
    neighbours = np.zeros((4, *plan.codes.shape), np.int64)
    for row, column in list(np.ndindex(plan.codes.shape[:2]))[1:]:
        neighbours[:, row, column] = _neighbours(plan.codes, row, column)
    step = max(plan.codes.size // _SAMPLE, 1)
    neighbours = neighbours.reshape(4, -1, plan.channels)[:, ::step]
    codes = plan.codes.reshape(-1, plan.channels)
    counts = np.full((1, 1), len(codes) / len(codes[::step]))
    codes = codes[::step]
    trial = dataclasses.replace(plan, weights=_fit_weights(codes, neighbours))
    predicted = np.tensordot(trial.weights, neighbours, axes=1)
    costs = np.full((SCALES, 2, plan.channels), np.inf)
    for offset in range(-_WINDOW, _WINDOW + 1):
        scale = np.clip(plan.scale + offset, 0, SCALES - 1)
        for clipped in (False, True):
            cost = bounds.cost(scale, clipped, codes, counts, predicted)
            costs[scale, int(clipped), np.arange(plan.channels)] = np.where(plan.clipped == clipped, cost, np.inf)
    with_neighbours = _choose(trial, costs, bounds, preferred)
    if with_neighbours >= bits:
        return bits
    plan.weights, plan.scale, plan.clipped = trial.weights, trial.scale, trial.clipped
    plan.low, plan.high = trial.low, trial.high
    return with_neighbours


@dataclasses.dataclass
class _Bounds:
    """Smallest and largest code of each channel."""

    low: np.ndarray
    high: np.ndarray

    def of(self, scale, clipped):
        """What a channel's bounds are if they are named (``clipped``), and if they follow from the scale."""
        reach = Normal.reach(scale)
        return np.where(clipped, self.low, -reach), np.where(clipped, self.high, reach)

    def cost(self, scale, clipped, codes, counts, predicted=None):
        """What codes cost, bits ``(C,)``, infinite where they are beyond the bounds.

        Args:
            scale: int array ``(C,)``.
            clipped: bool.
            codes: int array ``(n, 1)`` or ``(n, C)``.
            counts: how often each of these occurs, broadcastable to ``(n, C)``.
            predicted: weighted sums of the neighbours ``(n, C)``, or None.
        """
        low, high = self.of(scale, clipped)
        allowed = (low <= self.low) & (self.high <= high) & (high - low <= WIDEST)
        cost = np.full(scale.size, np.inf)
        if allowed.any():
            normal = Normal(scale[allowed], low[allowed], high[allowed])
            means = 0 if predicted is None else mean_of(predicted[:, allowed], normal.inverse_rms())
            each = normal.bits(codes if codes.shape[1] == 1 else codes[:, allowed], means)
            cost[allowed] = (each * (counts if counts.shape[1] == 1 else counts[:, allowed])).sum(axis=0)
        return cost + clipped * _BOUNDS_BITS


def _choose(plan, costs, bounds, preferred):
    """Set scale, clipped, low and high of each channel to what costs least; returns the cost in bits.

    Args:
        plan: `Plan`.
        costs: bits ``(scales, 2, C)``, without and with bounds that are named.
        bounds: `_Bounds`.
        preferred: the scales ``(C,)`` that cost nothing to name, or None.
    """
    if preferred is not None:
        costs = costs + _SURPRISE_BITS * np.abs(np.arange(SCALES)[:, None, None] - preferred)
    flat = costs.reshape(-1, plan.channels)
    best = flat.argmin(axis=0)
    plan.scale, plan.clipped = best // 2, best % 2 > 0
    plan.low, plan.high = bounds.of(plan.scale, plan.clipped)
    return float(flat.min(axis=0).sum())


def _fit_weights(sample, neighbours):
    """Least squares in units of each channel's rms, over the standard deviation of what remains."""
    rms = np.sqrt(np.mean(sample**2.0, axis=0))
    scaled = np.divide(1, rms, out=np.zeros_like(rms), where=rms > 0)  # a sample may miss all that a channel has
    columns = (neighbours * scaled).reshape(4, -1)
    target = (sample * scaled).ravel()
    weights = np.linalg.lstsq(columns @ columns.T, columns @ target, rcond=None)[0]
    left = np.mean((target - weights @ columns) ** 2)
    limit = WEIGHTS // 2
    return np.clip(np.rint(limit * weights / np.sqrt(max(left, 0.1))), -limit, limit - 1).astype(np.int64)
