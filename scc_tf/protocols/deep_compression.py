"""Deep Compression: prune in rounds, share weights, code.

Source: Han, Mao & Dally 2016, "Deep Compression" (arXiv 1510.00149); Han et al. 2015, "Learning both Weights and
Connections for Efficient Neural Networks" (arXiv 1506.02626).
"""

import keras
from absl import logging

from scc_tf.arguments import check_count, check_number
from scc_tf.conversion import add_masks, share_weights
from scc_tf.finishing.rounding import round_vectors
from scc_tf.keras_private import all_layers
from scc_tf.layers import Masked
from scc_tf.protocols.training import Training
from scc_tf.pruning import global_masks
from scc_tf.surgery import remove_dead_channels

__all__ = ["deep_compression", "densities", "masked_kernels", "prune_smallest"]


def deep_compression(model, data, density=0.1, clusters=16, *, rounds=3, epochs=3, **training):
    """Compress a trained network by Deep Compression.

    In every round the smallest weights of the whole network go, and so do the channels that are left without; what
    stays is trained. Then the weights of each layer become a few shared ones, which are trained for an epoch at a tenth
    of the learning rate. The third stage is the file: `scc_tf.save_packed` codes positions and shared weights.

    Args:
        model: trained Keras model, Sequential or functional; left untouched.
        data: what it was trained on, see `scc_tf.compress`.
        density: fraction of the weights that is left, in (0, 1]; it falls by the same factor in every round.
        clusters: different weights of a layer.
        rounds: of pruning and training.
        epochs: of training in a round.
        **training: ``learning_rate``, ``loss``, ``batch_size``, ``seed``, ``verbose`` of `Training`.

    Returns:
        Keras model with weight-sharing layers, for `scc_tf.save_packed`, `scc_tf.export_tflite` and `scc_tf.to_plain`.

    Raises:
        ValueError: if an argument is out of range, or the model or its data cannot be used.

    Example:
        >>> small = deep_compression(trained, (x_train, y_train), density=0.05)  # doctest: +SKIP
        >>> scc_tf.save_packed(small, "small.scc")                               # doctest: +SKIP
    """
    check_number("density", density, high=1, above=0)
    check_count("epochs", epochs)
    train = Training(model, data, **training)
    network = add_masks(model)
    total = sum(kernel.size for *_, kernel in masked_kernels(network))
    for left in densities(density, check_count("rounds", rounds)):
        network, report = prune_smallest(network, left * total)
        logging.info("%.1f %% of the weights: %s", 100 * left, report)
        train(network, epochs)
    shared = train(share_weights(network, clusters, seed=train.seed), 1, factor=0.1)
    round_vectors(shared)
    return shared


def densities(density, rounds):
    """The fraction that is left after each round: a geometric sequence.

    Example:
        >>> densities(0.25, 2)
        [0.5, 0.25]
    """
    return [density ** (n / rounds) for n in range(1, rounds + 1)]


def masked_kernels(network):
    """``(layer, name, kernel)`` for every kernel with a mask, kernels as arrays."""
    layers = [layer for layer in all_layers(network) if isinstance(layer, Masked)]
    return [(layer, name, keras.ops.convert_to_numpy(getattr(layer, name))) for layer in layers for name in layer.masks]


def prune_smallest(network, count):
    """Keep the ``count`` largest weights of a network with masks, and cut the channels that are left without.

    Args:
        network: see `scc_tf.add_masks`; its masks change.
        count: weights that stay; if it has fewer, all of them do.

    Returns:
        ``(smaller network, scc_tf.SurgeryReport)``.
    """
    found = masked_kernels(network)
    sparsity = max(0.0, 1 - count / sum(kernel.size for *_, kernel in found))
    masks = global_masks([kernel for *_, kernel in found], sparsity)
    for (layer, name, kernel), mask in zip(found, masks, strict=True):
        layer.prune(mask & (kernel != 0), name)  # of fewer than are asked for the mask keeps all
    return remove_dead_channels(network)
