"""What of a network stays, and the network that is left: whole neurons and filters, or single weights.

Both classes answer the same questions. ``kept`` is ``{layer name: bool array}`` on the axes of the whole network,
whatever has been cut from it before; ``ratio`` is the fraction of the whole network that is gone afterwards.
"""

import keras
import numpy as np

from scc_tf.conversion import add_masks
from scc_tf.flops import count_trainable
from scc_tf.keras_private import producing_call
from scc_tf.layers import Masked, kernels_of
from scc_tf.pruning import global_masks, kept_count, largest_neurons, neuron_scores
from scc_tf.surgery import remove_channels

__all__ = ["STRUCTURES", "Neurons", "Weights", "kernel_layers", "parameter_count"]


class Neurons:
    """Structured pruning: every layer but the output loses the same ratio of its neurons or filters.

    What is left is a smaller network: the biases of removed neurons go, and so do the weights that read them.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets" (arXiv 1608.08710).
    """

    def everything(self, model):
        """``kept`` of the whole ``model``, channels ``(C,)`` of each layer that can be pruned."""
        outputs = {producing_call(tensor).operation for tensor in model.outputs}
        layers = [layer for layer in kernel_layers(model) if layer not in outputs]
        return {layer.name: np.ones(layer.kernel.shape[-1], bool) for layer in layers}

    def choose(self, network, kept, ratio):
        """Keep the neurons with the largest L1 norm of incoming weights, of those that ``network`` still has.

        Args:
            network: what `cut` left for ``kept``, trained.
            kept: what it has.
            ratio: of each whole layer, rounded as by `scc_tf.pruning.kept_count`.
        """
        chosen = {}
        for name, mask in kept.items():
            scores = neuron_scores(keras.ops.convert_to_numpy(network.get_layer(name).kernel))
            chosen[name] = mask.copy()
            chosen[name][mask] = largest_neurons(scores, min(kept_count(mask.size, ratio), scores.size))
        return chosen

    def at_random(self, kept, ratio, rng):
        """As many neurons of the whole network as `choose` keeps, whichever they are."""
        return {
            name: largest_neurons(rng.permutation(mask.size), kept_count(mask.size, ratio))
            for name, mask in kept.items()
        }

    def cut(self, model, kept):
        """The smaller network of a whole ``model``, whose removed biases become zero.

        Raises:
            ValueError: if a channel cannot be removed.
        """
        for name, mask in kept.items():
            layer = model.get_layer(name)
            if layer.bias is not None:  # otherwise what it emits without inputs would go on into its readers' biases
                layer.bias.assign(layer.bias * mask)
        smaller, report = remove_channels(model, kept)
        if report.kept_dead:
            raise ValueError(f"Expected a network that can be cut. Received: {report.kept_dead}")
        return smaller


class Weights:
    """Unstructured pruning: the smallest weights of the whole network go, the output layer's too. Biases stay.

    What is left is a network of masked layers, whose pruned weights stay zero. The masks are chosen over all kernels at
    once, by `scc_tf.pruning.global_masks`.

    Source: Frankle & Carbin 2019, "The Lottery Ticket Hypothesis" (arXiv 1803.03635), section 4: global pruning.
    """

    def everything(self, model):
        """``kept`` of the whole ``model``, in the shapes of its kernels."""
        return {layer.name: np.ones(layer.kernel.shape, bool) for layer in kernel_layers(model)}

    def choose(self, network, kept, ratio):
        """Keep the largest weights, of those that ``network`` still has; the arguments are those of `Neurons`."""
        kernels = [keras.ops.convert_to_numpy(network.get_layer(name).kernel) for name in kept]
        largest = global_masks([k * m for k, m in zip(kernels, kept.values(), strict=True)], ratio, ties="first")
        return {name: mask & left for (name, mask), left in zip(kept.items(), largest, strict=True)}

    def at_random(self, kept, ratio, rng):
        """As many weights of the whole network as `choose` keeps, whichever they are."""
        masks = global_masks([rng.random(mask.shape) for mask in kept.values()], ratio, ties="first")
        return dict(zip(kept, masks, strict=True))

    def cut(self, model, kept):
        """The network of masked layers of a whole ``model``."""
        masked = add_masks(model)
        for name, mask in kept.items():
            masked.get_layer(name).prune(mask)
        return masked


STRUCTURES = {"structured": Neurons, "unstructured": Weights}


def parameter_count(network):
    """Weights and biases that are left: pruned entries of masked kernels do not count."""
    gone = [1 - mask for layer in network.layers if isinstance(layer, Masked) for mask in layer.masks.values()]
    return count_trainable(network) - sum(int(keras.ops.sum(entries)) for entries in gone)


def kernel_layers(model):
    """The layers with a kernel."""
    return [layer for layer in model.layers if kernels_of(layer)]
