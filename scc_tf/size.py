"""How big a self-compressing model is: the differentiable Q for training, and the honest report for people."""

import dataclasses
import json

import numpy as np
from keras import ops

from scc_tf.graph import trace_kernels

__all__ = ["SIZE_FORMS", "UNITS", "KernelSize", "SizeReport", "SizeTerm", "size_report"]

SIZE_FORMS = ("coupled", "sum")
UNITS = {"bits": 1.0, "bytes": 1.0 / 8.0}


def _kernels_of(model):
    nodes = trace_kernels(model)
    if not nodes:
        raise ValueError(
            f"Expected a model with self-compressing layers (see scc_tf.self_compress). "
            f"Received: {model.name!r} with none"
        )
    return nodes


class SizeTerm:
    """Q: the average bit depth over the weights of the starting network, differentiable in the bit depths.

    ``form="sum"``     ``Q = sum_l sum_i fan_in_l * b_{l,i} / N``  (eq. 3 and 4 of the paper).

    ``form="coupled"`` adds what a channel costs its consumers (eq. 5). With ``A`` the weights per input and
    channel, and a hat on the producers, layer ``l`` contributes::

        A * [live inputs] * sum_i b_i  +  A * [live channels] * sum_j b^_j

    The first term is the size once inputs from dead channels are gone; the second gives a producer's bits a
    gradient for the consumer weights that they keep alive. The second term makes Q about twice the size.
    Inputs without a known producer (the image, the output of an unknown operation) have the first term only. An
    input that several producers keep alive (a sum, a shared layer) has their mean for ``b^_j``.

    Args:
        model: Sequential or functional model with self-compressing layers.
        form: ``"coupled"`` or ``"sum"``.
        unit: ``"bits"`` or ``"bytes"`` per weight; gamma scales with it.
        starting_weights: ``N``. Default: the kernel weights of ``model`` now.

    Raises:
        ValueError: if ``form`` or ``unit`` is unknown, or the model has no self-compressing layer.

    Source: Cséfalvay & Imber 2023, eq. 3-5 (arXiv 2301.13142).

    Example:
        >>> import keras, scc_tf
        >>> model = keras.Sequential([keras.Input((3,)), scc_tf.layers.Dense(2, initial_bit_depth=4)])
        >>> float(SizeTerm(model)())
        4.0
    """

    def __init__(self, model, form="coupled", unit="bits", starting_weights=None):
        if form not in SIZE_FORMS:
            raise ValueError(f"Expected form to be one of {SIZE_FORMS}. Received: form={form!r}")
        if unit not in UNITS:
            raise ValueError(f"Expected unit to be one of {tuple(UNITS)}. Received: unit={unit!r}")
        self.nodes = _kernels_of(model)
        self.form, self.unit = form, unit
        self.starting_weights = starting_weights or sum(n.layout.channels * n.layout.fan_in for n in self.nodes)
        self.scale = UNITS[unit] / self.starting_weights

    def __call__(self):
        """Q as a float32 scalar tensor."""
        if self.form == "sum":
            bits = sum(ops.sum(ops.relu(n.format.bit_depth)) * n.layout.fan_in for n in self.nodes)
            return bits * self.scale
        # One row of all bit depths, and a last entry for producers that never die: no bits, always alive.
        bits = ops.concatenate([ops.relu(n.format.bit_depth) for n in self.nodes] + [ops.zeros((1,))])
        alive = ops.concatenate([ops.cast(bits[:-1] > 0, "float32"), ops.ones((1,))])
        return sum(self._coupled(n, bits, alive) for n in self.nodes) * self.scale

    @staticmethod
    def _coupled(node, bits, alive):
        own = slice(node.offset, node.offset + node.layout.channels)
        groups = (node.layout.groups, -1)

        def per_group(values):
            return ops.sum(ops.reshape(values, groups), axis=1)

        live_inputs = per_group(ops.max(ops.take(alive, node.inputs), axis=0))
        producer_bits = per_group(ops.mean(ops.take(bits, node.inputs), axis=0))
        return node.layout.weights_per_input * ops.sum(
            live_inputs * per_group(bits[own]) + per_group(alive[own]) * producer_bits
        )


@dataclasses.dataclass(frozen=True)
class KernelSize:
    """Size of one kernel; see `SizeReport` for the units."""

    layer: str
    kernel: str
    channels: int
    live_channels: int
    weights: int
    live_weights: int
    nominal_bits: float
    integer_bytes: float
    entropy_bytes: float
    side_bytes: int
    float32_bytes: int


@dataclasses.dataclass(frozen=True)
class SizeReport:
    """Four sizes of one model, per kernel and in total. None of them is a file.

    Attributes:
        kernels: one `KernelSize` per self-compressing kernel.
        nominal_bits: ``sum fan_in * b`` over every weight: the papers' number, a training quantity. A fractional
            bit depth is charged less than any code of fixed width needs.
        integer_bytes: every live weight at the width of its channel's actual smallest and largest code
            (two's complement, at least 1 bit; live weights only), plus ``side_bytes``.
        entropy_bytes: every live weight at the zero-order entropy of its kernel's codes, plus ``side_bytes``: what
            an ideal coder with free tables reaches.
        side_bytes: what both need besides codes: 4 bytes exponent and 1 byte width per live channel, and
            ``other_bytes``.
        other_bytes: parameters outside the kernels (biases, normalization, skipped layers) as float32.
        float32_bytes: the starting architecture as float32, without bit depths and exponents.

    A weight is live if its channel has a code other than 0 and its input does not come from dead channels alone.
    Inputs from dead channels are only left out where removing them is exact (no padding with zeros).

    Not counted: the one bit per channel that marks it dead, a file header, and the biases that absorb the constants
    (not 0) of dead channels where a consumer has none of its own. Counted, though a real file drops them: biases and
    batch statistics of dead channels.
    """

    kernels: tuple
    other_bytes: int

    def _sum(self, field):
        return sum(getattr(k, field) for k in self.kernels)

    @property
    def nominal_bits(self):
        """Sum of fan_in * bit_depth, bits."""
        return self._sum("nominal_bits")

    @property
    def side_bytes(self):
        """Exponents, widths and all parameters that are not kernels, bytes."""
        return self._sum("side_bytes") + self.other_bytes

    @property
    def integer_bytes(self):
        """Fixed-width codes and side information, bytes."""
        return self._sum("integer_bytes") + self.side_bytes

    @property
    def entropy_bytes(self):
        """Entropy of the codes and side information, bytes."""
        return self._sum("entropy_bytes") + self.side_bytes

    @property
    def float32_bytes(self):
        """The same architecture in float32, bytes."""
        return self._sum("float32_bytes") + self.other_bytes

    @property
    def dead_channels(self):
        """Channels with no code but 0."""
        return self._sum("channels") - self._sum("live_channels")

    def to_json(self):
        """All numbers as one JSON string."""
        totals = {
            name: getattr(self, name)
            for name in (
                "nominal_bits",
                "integer_bytes",
                "entropy_bytes",
                "side_bytes",
                "float32_bytes",
                "dead_channels",
            )
        }
        rows = [dataclasses.asdict(k) for k in self.kernels]
        return json.dumps({**totals, "other_bytes": self.other_bytes, "kernels": rows})

    def __str__(self):
        """A table: one row per kernel, codes only; the totals with the side information."""
        columns = "{:<28}{:>11}{:>16}{:>12}{:>12}{:>12}{:>11}"
        lines = [columns.format("kernel", "channels", "weights", "nominal B", "integer B", "entropy B", "float32 B")]
        lines += [
            columns.format(
                f"{k.layer}/{k.kernel}"[:27],
                f"{k.live_channels}/{k.channels}",
                f"{k.live_weights:,}/{k.weights:,}",
                *(f"{v:,.0f}" for v in (k.nominal_bits / 8, k.integer_bytes, k.entropy_bytes, k.float32_bytes)),
            )
            for k in self.kernels
        ]
        side, other = f"{self.side_bytes:,.0f}", f"{self.other_bytes:,.0f}"
        lines.append(columns.format("exponents, widths, others", "", "", "-", side, side, other))
        totals = (self.nominal_bits / 8, self.integer_bytes, self.entropy_bytes, self.float32_bytes)
        counts = (
            f"{self._sum('live_channels')}/{self._sum('channels')}",
            f"{self._sum('live_weights'):,}/{self._sum('weights'):,}",
        )
        lines.append(columns.format("total", *counts, *(f"{t:,.0f}" for t in totals)))
        return "\n".join(lines)


def _entropy_bits(codes):
    """Zero-order entropy of an integer array, bits in total."""
    counts = np.unique(codes, return_counts=True)[1]
    return float(np.sum(counts * np.log2(codes.size / counts))) if codes.size else 0.0


def _code_width(low, high):
    """Bits of the shortest two's complement code for the integers low..high: 1 for 0..0 and -1..0, 4 for 0..5."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    return np.maximum(np.ceil(np.log2(np.maximum(-low, high + 1).astype(float))) + 1, 1)


def size_report(model):
    """Measure a self-compressing model in the units that people quote.

    Args:
        model: Sequential or functional model, usually from `scc_tf.self_compress`.

    Returns:
        `SizeReport`; ``print`` it for a table.

    Raises:
        ValueError: if the model is a subclassed one, not built, or has no self-compressing layer.

    Example:
        >>> import keras, scc_tf
        >>> model = keras.Sequential([keras.Input((3,)), scc_tf.layers.Dense(2, initial_bit_depth=4)])
        >>> size_report(model).float32_bytes
        32
    """
    nodes = _kernels_of(model)
    codes = [np.asarray(ops.convert_to_numpy(n.layer.codes(n.layout.name))) for n in nodes]
    alive = np.concatenate([n.layout.rows(c).any(axis=(1, 2)).ravel() for n, c in zip(nodes, codes, strict=True)])
    kernels = tuple(_kernel_size(n, c, alive) for n, c in zip(nodes, codes, strict=True))
    learned = {id(v) for n in nodes for v in (n.format.bit_depth, n.format.exponent)}
    kernel_variables = {id(getattr(n.layer, n.layout.name)) for n in nodes}
    others = {id(w): w for w in model.weights if id(w) not in learned | kernel_variables}
    return SizeReport(kernels, sum(4 * int(np.prod(w.shape)) for w in others.values()))


def _kernel_size(node, codes, alive):
    live_channel = alive[node.offset : node.offset + node.layout.channels].reshape(node.layout.groups, -1)
    rows = node.layout.rows(codes)
    live_input = node.live_inputs(alive) if node.exact else np.ones(node.inputs.shape[1], bool)
    live_input = live_input.reshape(node.layout.groups, -1)
    rows = rows * live_input[:, :, None, None]
    width = _code_width(rows.min(axis=(1, 2)), rows.max(axis=(1, 2)))  # (groups, channels of the group)
    per_channel = live_input.sum(axis=1, keepdims=True) * node.layout.weights_per_input
    keep = live_channel[:, None, None, :] & live_input[:, :, None, None]
    live_codes = rows[np.broadcast_to(keep, rows.shape)]
    bit_depth = np.asarray(ops.convert_to_numpy(node.format.bit_depth), np.float64)
    live = int(live_channel.sum())
    return KernelSize(
        layer=node.layer.name,
        kernel=node.layout.name,
        channels=node.layout.channels,
        live_channels=live,
        weights=codes.size,
        live_weights=int(live_codes.size),
        nominal_bits=float(np.maximum(bit_depth, 0).sum() * node.layout.fan_in),
        integer_bytes=float((width * per_channel * live_channel).sum() / 8),
        entropy_bytes=_entropy_bits(live_codes) / 8,
        side_bytes=5 * live,
        float32_bytes=4 * codes.size,
    )
