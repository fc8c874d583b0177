"""Parameters and multiply-accumulates of a model, by how many channels its chains keep: no model is built for it."""

import functools
import math

import keras

from scc_tf.flops import count_operations, count_trainable

__all__ = ["ChainCosts"]


class ChainCosts:
    """The size and the work of a model whose chains have other numbers of channels.

    Args:
        model: built Sequential or functional model.
        chains: list of its `scc_tf.clustering.chains.Chain`.

    Attributes:
        full: channels of every chain, as the model is.
    """

    def __init__(self, model, chains):
        self.full = [chain.channels for chain in chains]
        self._model = model
        self._chains_of = {}  # layer -> numbers of its own chain and of the one that it reads
        self._per_channel = []  # trainable vectors of each chain
        for number, chain in enumerate(chains):
            for layer in (chain.layer, *(reader.layer for reader in chain.readers)):
                self._chains_of.setdefault(layer, []).append(number)
            vectors = [chain.layer.bias, *(() if chain.norm is None else (chain.norm.gamma, chain.norm.beta))]
            self._per_channel.append(sum(v is not None and v.trainable for v in vectors))

    def parameters(self, counts):
        """Trainable parameters of the model with these numbers of channels, one per chain."""
        removed = sum(n * (c - k) for n, c, k in zip(self._per_channel, self.full, counts, strict=True))
        total = count_trainable(self._model)
        return total - removed - self._removed(counts, lambda layer: int(layer.kernel.trainable))

    def multiply_accumulates(self, counts):
        """Multiply-accumulates of one example likewise; see `scc_tf.flops.count_operations`.

        Raises:
            ValueError: if the size of an input of a kernel is not fixed.
        """
        return self._operations - self._removed(counts, _positions)

    @functools.cached_property
    def _operations(self):
        return count_operations(self._model).multiply_accumulates

    def _removed(self, counts, factor):
        removed = 0
        for layer, numbers in self._chains_of.items():
            before, after = (math.prod(sizes[n] for n in numbers) for sizes in (self.full, counts))
            removed += math.prod(layer.kernel.shape) // before * (before - after) * factor(layer)
        return removed


def _positions(layer):
    """How often a kernel is applied to one example."""
    tensor = layer.input if isinstance(layer, keras.layers.Dense) else layer.output
    return math.prod(tensor.shape[1:-1])
