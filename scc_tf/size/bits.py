"""Q as the bits of the weights: learned bit depths."""

import keras
import numpy as np
from keras import ops

from scc_tf.arguments import check_choice, check_count
from scc_tf.graph import trace_kernels

__all__ = ["SIZE_FORMS", "UNITS", "SizeTerm", "bits_table", "compressing_kernels"]

SIZE_FORMS = ("coupled", "sum")
UNITS = {"bits": 1.0, "bytes": 1.0 / 8.0}


def compressing_kernels(model):
    """The self-compressing kernels of a functional model as `scc_tf.graph.KernelNode`; raises if there are none."""
    nodes = trace_kernels(model)
    if not nodes:
        raise ValueError(
            f"Expected a model with self-compressing layers (see scc_tf.self_compress). "
            f"Received: {model.name!r} with none"
        )
    return nodes


def bits_table(model):
    """A row per compressed kernel: channels that have bits, bits per weight (nominal), bytes at these bits; a total."""
    rows = [("Compressed kernel", "Channels", "Bits/weight", "Bytes", "float32 bytes")]
    sums = np.zeros(4)
    for node in compressing_kernels(model):
        depths, fan_in = np.maximum(ops.convert_to_numpy(node.format.bit_depth), 0), node.layout.fan_in
        numbers = np.array([(depths > 0).sum(), depths.size, depths.sum() * fan_in, depths.size * fan_in])
        rows.append(_row(f"{node.layer.name}/{node.layout.name}", *numbers))
        sums += numbers
    columns = "{:<32}{:>16}{:>16}{:>16}{:>16}"
    return "\n".join(columns.format(*row) for row in [*rows, _row("all", *sums)])


def _row(name, alive, channels, bits, weights):
    return name, f"{alive:.0f}/{channels:.0f}", f"{bits / weights:.2f}", f"{bits / 8:,.0f}", f"{4 * weights:,.0f}"


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

    def __init__(
        self, model: keras.Model, form: str = "coupled", unit: str = "bits", starting_weights: float | None = None
    ):
        self.form, self.unit = check_choice("form", form, SIZE_FORMS), check_choice("unit", unit, UNITS)
        self.nodes = compressing_kernels(model)
        if starting_weights is None:
            starting_weights = sum(n.layout.channels * n.layout.fan_in for n in self.nodes)
        self.starting_weights = check_count("starting_weights", starting_weights)
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

        def per_group(values):
            return ops.sum(ops.reshape(values, (node.layout.groups, -1)), axis=1)

        live_inputs = per_group(ops.max(ops.take(alive, node.inputs), axis=0))
        producer_bits = per_group(ops.mean(ops.take(bits, node.inputs), axis=0))
        return node.layout.weights_per_input * ops.sum(
            live_inputs * per_group(bits[own]) + per_group(alive[own]) * producer_bits
        )
