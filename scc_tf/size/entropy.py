"""Q as an entropy coder sees it: the bits that the codes will take in a file."""

import math

import keras
from keras import ops

from scc_tf.arguments import check_choice, check_count, check_number
from scc_tf.layers import self_compressing_layers
from scc_tf.size.bits import UNITS, compressing_kernels

__all__ = ["RateTerm", "ValueCosts"]

LARGEST = 31  # larger codes cost as much more as the step to this one
_STEEPNESS = 0.1  # bits that this step costs at least, however many codes are larger
_PRIOR = 1.0  # pseudo-counts of a histogram in all, halved from magnitude to magnitude
_CONFIDENCE = 2.0  # pseudo-counts of a row's or a channel's share of codes that are not 0


class ValueCosts:
    """Bits of every integer, from a running histogram; between two integers they are interpolated.

    Args:
        momentum: of the histogram, in [0, 1).
        zeros: whether zeros are counted; if not, they cost nothing.

    Source: after Oktay et al. 2020, "Scalable Model Compression by Entropy Penalized Reparameterization"
        (arXiv 1906.06624), with a histogram in place of a learned density.

    Example:
        >>> costs = ValueCosts()
        >>> costs.update([ops.array([0.0, 0.0, 0.0, 1.0])], fresh=True)
        >>> zero, half, one = ops.convert_to_numpy(costs(ops.array([0.0, 0.5, 1.0]))).tolist()
        >>> zero < half < one
        True
    """

    def __init__(self, momentum=0.9, zeros=True):
        self.momentum = check_number("momentum", momentum, 0, below=1)
        away = ops.abs(ops.arange(-LARGEST, LARGEST + 1, dtype="float32"))
        self._counts, self._bits = _count(away.shape), _count(away.shape)
        self.variables = [self._counts, self._bits]
        self._counted = ops.ones(away.shape) if zeros else ops.cast(away > 0, "float32")
        prior = ops.power(0.5, away) * self._counted
        self._prior = _PRIOR * prior / ops.sum(prior)

    def update(self, codes, fresh):
        """Count codes, a list of float tensors of integers in any shapes; ``fresh`` forgets all earlier ones."""
        places = ops.concatenate([ops.reshape(c, (-1,)) for c in codes])
        places = ops.cast(ops.clip(places, -LARGEST, LARGEST), "int32") + LARGEST
        counts = ops.segment_sum(ops.ones(places.shape), places, num_segments=2 * LARGEST + 1) * self._counted
        _move(self._counts, counts, 0.0 if fresh else self.momentum)
        smoothed = self._counts + self._prior
        bits = -ops.log2(ops.maximum(smoothed, 1e-30) / ops.sum(smoothed)) * self._counted
        ends = [ops.maximum(bits[end], bits[inner] + _STEEPNESS) for end, inner in ((0, 1), (-1, -2))]
        self._bits.assign(ops.concatenate([ends[0][None], bits[1:-1], ends[1][None]]))

    def __call__(self, scaled):
        """Bits of every entry of a float tensor, in its shape; its gradient is the slope between its neighbours."""
        below = ops.stop_gradient(ops.clip(ops.nan_to_num(ops.floor(scaled)), -LARGEST, LARGEST - 1))
        place = ops.cast(below, "int32") + LARGEST
        low, high = ops.take(self._bits, place), ops.take(self._bits, place + 1)
        return low + (high - low) * (scaled - below)


class _KernelRate:
    """Bits of one kernel: whether a code is 0, by the density of its row and its channel; then its value."""

    def __init__(self, node, momentum):
        self.layer, self.format = node.layout.layer, node.format
        self.values = ValueCosts(momentum, zeros=False)
        fmt = self.format
        self._per_row = _count([1 if axis in fmt.channel_axes else size for axis, size in enumerate(fmt.shape)])
        self._per_channel = _count(fmt.broadcast_shape)
        self.variables = [*self.values.variables, self._per_row, self._per_channel]

    def update(self, fresh):
        """Look at the codes as they are."""
        codes = ops.cast(self.layer.codes(self.format.name), "float32")
        self.values.update([codes], fresh)
        some, kept = ops.cast(codes != 0, "float32"), 0.0 if fresh else self.values.momentum
        for counts, axes in ((self._per_row, self.format.channel_axes), (self._per_channel, self.format.other_axes)):
            _move(counts, ops.sum(some, axis=axes, keepdims=True), kept)

    def bits(self):
        """Bits of all codes, a scalar."""
        fmt = self.format
        # the latent kernel in steps, so that its codes are the nearest integers
        scaled = ops.cast(getattr(self.layer, fmt.name), "float32") * ops.power(2.0, -fmt.spread(fmt.exponent))
        scaled = scaled - 0.5 if self.layer.rounding == "floor" else scaled
        odds = self._log_odds()
        flags = ops.softplus(odds) - ops.minimum(ops.abs(scaled), 1.0) * odds
        live = ops.cast(fmt.spread(fmt.bit_depth) > 0, "float32")
        return ops.sum((flags / math.log(2.0) + self.values(scaled)) * live)

    def _log_odds(self):
        """Natural log-odds that a code is not 0, in a shape that broadcasts against the kernel."""
        fmt = self.format
        share = (ops.sum(self._per_channel) + 0.5) / (fmt.channels * fmt.fan_in + 1)
        odds = -_logit(share)
        for counts, size in ((self._per_row, fmt.channels), (self._per_channel, fmt.fan_in)):
            odds = odds + _logit((counts + _CONFIDENCE * share) / (size + _CONFIDENCE))
        return ops.minimum(odds, 0.0)  # a code must never pay for being 0, or a dense start stays dense


def _count(shape):
    return keras.Variable(ops.zeros(shape), trainable=False, dtype="float32")


def _move(counts, towards, kept):
    counts.assign(kept * counts + (1 - kept) * towards)


def _logit(share):
    return ops.log(share) - ops.log1p(-share)


class RateTerm:
    """Q: the bits that the codes of a model will take in its file, over the weights of the starting network.

    The bits of a code are those of an adaptive coder that knows how many of the codes in its row (one input at one
    position, over all channels) and in its channel are not 0, and how often each value is: running counts of the codes,
    taken every few steps. Between two integers the bits are interpolated, so weights and exponents get a gradient:
    weights that are not worth their bits move to 0, and steps become coarse. The codes of all quantized biases are
    counted together.

    Args:
        model: Sequential or functional model with self-compressing layers.
        unit: ``"bits"`` or ``"bytes"`` per weight.
        starting_weights: ``N``, at least 1. Default: the kernel weights of ``model`` now.
        momentum: of the counts, in [0, 1).

    Raises:
        ValueError: if ``unit`` is unknown, a number is out of range, or the model has no self-compressing layer.

    Source: Oktay et al. 2020 (arXiv 1906.06624) for the rate as a loss; the counts and their contexts are ours.

    Example:
        >>> import scc_tf
        >>> layer = scc_tf.layers.Dense(4, initial_bit_depth=4)
        >>> model = keras.Sequential([keras.Input((8,)), layer])
        >>> all_bits = float(RateTerm(model)())
        >>> _ = layer.kernel.assign(ops.where(ops.abs(layer.kernel) < 0.3, 0.0, layer.kernel))
        >>> float(RateTerm(model)()) < all_bits
        True
    """

    def __init__(
        self, model: keras.Model, unit: str = "bits", starting_weights: float | None = None, momentum: float = 0.9
    ):
        check_choice("unit", unit, UNITS)
        check_number("momentum", momentum, 0, below=1)
        nodes = compressing_kernels(model)
        if starting_weights is None:
            starting_weights = sum(n.layout.channels * n.layout.fan_in for n in nodes)
        self.unit, self.starting_weights = unit, check_count("starting_weights", starting_weights)
        self.scale = UNITS[unit] / self.starting_weights
        self._kernels = [_KernelRate(node, momentum) for node in nodes]
        self._biased = [layer for layer in self_compressing_layers(model) if layer.has_quantized_bias]
        self._biases = ValueCosts(momentum)
        self.update(fresh=True)

    @property
    def variables(self):
        """What has been counted: not weights of the model, but what training needs to go on where it stopped."""
        return [v for part in (*self._kernels, self._biases) for v in part.variables]

    def update(self, fresh=False):
        """Count the codes as they are; ``fresh`` forgets the counts before."""
        for kernel in self._kernels:
            kernel.update(fresh)
        if self._biased:
            self._biases.update([ops.round(layer.scaled_bias()) for layer in self._biased], fresh)

    def __call__(self):
        """Q as a float32 scalar tensor."""
        bits = sum(kernel.bits() for kernel in self._kernels)
        for layer in self._biased:
            bits += ops.sum(self._biases(layer.scaled_bias()))
        return bits * self.scale
