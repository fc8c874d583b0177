"""How big a self-compressing model is, for people: the file, and the sizes that papers quote."""

import dataclasses

import keras
import numpy as np
from keras import ops

from scc_tf.coding import entropy_bits
from scc_tf.export import packed_bytes
from scc_tf.graph import check_functional
from scc_tf.keras_private import all_layers
from scc_tf.layers import Masked, SelfCompressing, WeightSharing, kernels_of, self_compressing_layers
from scc_tf.reports import Report, Table
from scc_tf.size import compressing_kernels

__all__ = ["KernelSize", "SizeReport", "size_report"]


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


@dataclasses.dataclass(frozen=True, repr=False)
class SizeReport(Report):
    """Five sizes of one model, per kernel and in total. Only the first is that of a file.

    Attributes:
        stored_bytes: length of the file that `scc_tf.save_packed` writes; None where it was not asked for.
        kernels: one `KernelSize` per compressed kernel.
        nominal_bits: ``sum fan_in * b`` over every weight: the papers' number, a training quantity. A fractional
            bit depth is charged less than any code of fixed width needs.
        integer_bytes: every live weight at the width of its channel's actual smallest and largest code
            (two's complement, at least 1 bit; live weights only), plus ``side_bytes``.
        entropy_bytes: every live weight at the zero-order entropy of its kernel's codes, plus ``side_bytes``: what
            an ideal coder with free tables reaches.
        side_bytes: what both need besides codes: 4 bytes exponent and 1 byte width per live channel, and
            ``other_bytes``.
        other_bytes: parameters outside the kernels (biases, normalization, skipped layers) as float32.
        float32_bytes: the architecture as it is now as float32, without bit depths and exponents.

    A kernel with a mask counts 32 bits for each weight that is kept, and its mask; one with shared weights counts the
    indices, as wide as their number asks for, and a table of 4 bytes for each.

    A weight is live if its channel has a code other than 0 and its input does not come from dead channels alone.
    Inputs from dead channels are only left out where removing them is exact (no padding with zeros).

    Not counted but in ``stored_bytes``: the one bit per channel that marks it dead, a file header, and the biases that
    absorb the constants (not 0) of dead channels where a consumer has none of its own. Counted, though a file without
    dead channels drops them: biases and batch statistics of dead channels.
    """

    totals = (
        *("stored_bytes", "nominal_bits", "integer_bytes", "entropy_bytes", "side_bytes", "float32_bytes"),
        "dead_channels",
    )
    kernels: tuple
    other_bytes: int
    stored_bytes: int | None = None

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

    def parts(self):
        """A row per kernel, codes only; the totals with the side information; what is in other layers."""
        rows = [
            (
                f"{k.layer}/{k.kernel}"[:27],
                f"{k.live_channels}/{k.channels}",
                f"{k.live_weights:,}/{k.weights:,}",
                *(f"{v:,.0f}" for v in (k.nominal_bits / 8, k.integer_bytes, k.entropy_bytes, k.float32_bytes)),
            )
            for k in self.kernels
        ]
        side, other = f"{self.side_bytes:,.0f}", f"{self.other_bytes:,.0f}"
        rows.append(("exponents, widths, others", "", "", "-", side, side, other))
        counts = (
            f"{self._sum('live_channels')}/{self._sum('channels')}",
            f"{self._sum('live_weights'):,}/{self._sum('weights'):,}",
        )
        totals = (self.nominal_bits / 8, self.integer_bytes, self.entropy_bytes, self.float32_bytes)
        rows.append(("total", *counts, *(f"{t:,.0f}" for t in totals)))
        head = ("kernel", "channels", "weights", "nominal B", "integer B", "entropy B", "float32 B")
        yield Table("{:<28}{:>11}{:>16}{:>12}{:>12}{:>12}{:>11}", rows, head)
        if self.stored_bytes is not None:
            yield f"as a file: {self.stored_bytes:,} B"


def _code_width(low, high):
    """Bits of the shortest two's complement code for the integers low..high: 1 for 0..0 and -1..0, 4 for 0..5."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    return np.maximum(np.ceil(np.log2(np.maximum(-low, high + 1).astype(float))) + 1, 1)


def size_report(model: keras.Model, stored: bool = True) -> SizeReport:
    """Measure a compressed model: its file, and the units that people quote.

    Args:
        model: Sequential or functional model from `scc_tf.self_compress`, `add_masks` or `share_weights`.
        stored: whether to pack the model for ``stored_bytes``, which takes about a second per million weights and
            needs layers that a packed file can hold.

    Returns:
        `SizeReport`; ``print`` it for a table.

    Raises:
        ValueError: if the model is a subclassed one, not built, or has no compressed layer; with ``stored``, as
            `scc_tf.save_packed`.

    Example:
        >>> import keras, scc_tf
        >>> model = keras.Sequential([keras.Input((3,)), scc_tf.layers.Dense(2, initial_bit_depth=4)])
        >>> size_report(model).float32_bytes
        32
    """
    check_functional(model)
    layers = [layer for layer in all_layers(model) if isinstance(layer, Masked | WeightSharing)]
    others = [kernel for layer in layers if not isinstance(layer, SelfCompressing) for kernel in kernels_of(layer)]
    nodes = compressing_kernels(model) if not others or self_compressing_layers(model) else []
    codes = [np.asarray(ops.convert_to_numpy(n.layer.codes(n.layout.name))) for n in nodes]
    rows = [n.layout.rows(c).any(axis=(1, 2)).ravel() for n, c in zip(nodes, codes, strict=True)]
    alive = np.concatenate(rows) if rows else None
    kernels = [_kernel_size(n, c, alive) for n, c in zip(nodes, codes, strict=True)]
    kernels += [_shared_size(k) if isinstance(k.layer, WeightSharing) else _masked_size(k) for k in others]
    counted = {id(v) for n in nodes for v in (n.format.bit_depth, n.format.exponent, getattr(n.layer, n.layout.name))}
    for kernel in others:
        own = getattr(kernel.layer, kernel.name)
        parts = (own.centroids, own.indices) if isinstance(kernel.layer, WeightSharing) else (own,)
        counted |= {id(part) for part in parts}
    rest = {id(w): w for w in model.weights if id(w) not in counted}
    other_bytes = sum(4 * int(np.prod(w.shape)) for w in rest.values())
    return SizeReport(tuple(kernels), other_bytes, len(packed_bytes(model)) if stored else None)


def _masked_size(kernel):
    values = kernel.values()
    kept = int(np.count_nonzero(values))
    return _size_of(kernel, values, 32.0 * kept, 4 * kept + values.size / 8, 4 * kept + entropy_bits(values != 0) / 8)


def _shared_size(kernel):
    shared = getattr(kernel.layer, kernel.name)
    indices, used = (np.asarray(ops.convert_to_numpy(part)) for part in (shared.indices, shared.centroids))
    bits = float(indices.size * np.ceil(np.log2(max(2, len(np.unique(indices))))))
    table = 4 * used.size
    return _size_of(kernel, kernel.values(), bits, bits / 8 + table, entropy_bits(indices) / 8 + table)


def _size_of(kernel, values, nominal_bits, integer_bytes, entropy_bytes):
    return KernelSize(
        layer=kernel.layer.name,
        kernel=kernel.name,
        channels=kernel.channels,
        live_channels=int(kernel.rows(values).any(axis=(1, 2)).sum()),
        weights=values.size,
        live_weights=int(np.count_nonzero(values)),
        nominal_bits=nominal_bits,
        integer_bytes=integer_bytes,
        entropy_bytes=entropy_bytes,
        side_bytes=0,
        float32_bytes=4 * values.size,
    )


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
        entropy_bytes=entropy_bits(live_codes) / 8,
        side_bytes=5 * live,
        float32_bytes=4 * codes.size,
    )
