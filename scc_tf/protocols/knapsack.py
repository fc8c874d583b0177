"""A network pruned to a budget of bytes: the edges that are worth their bits.

Source: founding document "Model Compression" (H. Vaidya), which asks for it and stops at one neuron,
`scc_tf.pruning.reduce_neuron`.
"""

import keras
import numpy as np

from scc_tf.arguments import check_count
from scc_tf.coding.codebook import share_weights as share_values
from scc_tf.conversion import add_masks, share_weights
from scc_tf.export.packed import packed_report
from scc_tf.finishing.rounding import round_vectors
from scc_tf.inference import outputs
from scc_tf.keras_private import all_layers
from scc_tf.protocols.training import Training
from scc_tf.pruning import edge_bits, fractional_bound, reduce_layer
from scc_tf.surgery import remove_dead_channels

__all__ = [
    "cut",
    "cut_to_file",
    "dense_layers",
    "edge_energies",
    "knapsack_pruning",
    "round_small_vectors",
    "worth_their_bits",
]

_TRIALS = 12  # files that are made at most until one fits
_ROOM = 0.007  # of the bytes that a file is cut to, which it may leave
_LEAST_ROOM = 4  # bytes
_TUNED = 0.997  # files before the training of shared weights, in budgets: biases may need some bytes more after it
_MORE = 1.06  # files before the last retraining, in budgets: weights that it makes small leave bytes free
_BITS = 9  # of an edge, a first guess
_GUESS = 0.1  # of the bytes that the first file may leave: how many edges the rounds lead to
_SMALL = 2.0**-14  # below it float16 has fewer digits
_CALIBRATION = 2000  # examples


def knapsack_pruning(model, data, target_bytes, clusters=16, *, rounds=3, epochs=3, **training):
    """Prune the Dense layers of a trained network to a file of so many bytes, and share what is left.

    An edge of weight ``w`` that reads ``x`` is worth ``w^2 E[x^2]`` and costs the bits of its position and its weight.
    Those of the largest total worth that fit are kept, in rounds with a training each.

    Args:
        model: trained Keras model, Sequential or functional, with Dense layers; left untouched.
        data: what it was trained on, see `scc_tf.compress`.
        target_bytes: of the whole ``.scc`` file, at most.
        clusters: different weights of a layer.
        rounds: of pruning and training.
        epochs: of training in a round.
        **training: ``learning_rate``, ``loss``, ``batch_size``, ``seed``, ``verbose`` of `Training`.

    Returns:
        Keras model with weight-sharing layers, for `scc_tf.save_packed`.

    Raises:
        ValueError: if an argument is out of range, no Dense layer is left to prune, or no file fits.

    Example:
        >>> small = knapsack_pruning(trained, (x_train, y_train), 6000)  # doctest: +SKIP
        >>> scc_tf.save_packed(small, "small.scc")                       # doctest: +SKIP
    """
    check_count("target_bytes", target_bytes)
    for name, value in (("rounds", rounds), ("epochs", epochs)):
        check_count(name, value)
    network = add_masks(model)
    if not dense_layers(network):
        raise ValueError(f"Expected a model with Dense layers. Received: {model.name!r}")
    train = Training(model, data, **training)
    inputs = keras.tree.map_structure(lambda array: array[:_CALIBRATION], train.data.inputs)

    def choose(network, edges):
        return worth_their_bits(network, edge_energies(network, inputs), edges, clusters)[0]

    def to_file(network, edges, target, room=_ROOM):
        return cut_to_file(network, choose, edges, target, clusters, room)

    total = sum(layer.kernel.shape[0] * layer.units for layer in dense_layers(network))
    _, edges = to_file(network, 8 * target_bytes / _BITS, target_bytes, _GUESS)
    for number in range(1, rounds):
        network = cut(network, choose(network, round(total * (edges / total) ** (number / rounds))))
        train(network, epochs)
    network, edges = to_file(network, edges, _MORE * target_bytes)
    network, _ = to_file(train(network, epochs), edges, _TUNED * target_bytes)
    shared = train(share_weights(network, clusters, seed=train.seed), 1, factor=0.1)
    round_small_vectors(shared)
    if (size := packed_report(shared).stored_bytes) > target_bytes:
        raise ValueError(f"Expected a target that the trained network fits. Received: {target_bytes} B for {size} B")
    return shared


def dense_layers(model):
    """Whose edges are chosen: the Dense layers, of any kind."""
    return [layer for layer in all_layers(model) if isinstance(layer, keras.layers.Dense)]


def edge_energies(network, inputs):
    """What the edges of each Dense layer are worth: ``w^2 E[x^2]``, float64 arrays ``(inputs, units)``."""
    layers = dense_layers(network)
    tapped = keras.Model(network.inputs, [layer.input for layer in layers])
    read = keras.tree.flatten(outputs(tapped, inputs))
    means = [np.square(x.reshape(-1, x.shape[-1]), dtype=np.float64).mean(axis=0)[:, None] for x in read]
    return [np.square(layer.kernel, dtype=np.float64) * mean for layer, mean in zip(layers, means, strict=True)]


def worth_their_bits(network, values, edges, clusters):
    """Masks of the edges that are worth most for the bits of the ``edges`` worthiest.

    Returns:
        ``(masks, gap)``: the gap is how far their value is from its upper bound at most, a fraction of that.
    """
    kernels = [np.asarray(layer.kernel) for layer in dense_layers(network)]
    worthiest = reduce_layer(values, [8] * len(values), edges, method="greedy")
    pairs = list(zip(kernels, worthiest, strict=True))
    bits = [edge_bits(mask, _nearest(kernel, mask, clusters)) for kernel, mask in pairs]
    budget = int(sum(own[mask].sum() for own, mask in zip(bits, worthiest, strict=True)))
    masks = reduce_layer(values, bits, budget / 8, method="greedy")
    bound = fractional_bound(*(np.concatenate([a.ravel() for a in arrays]) for arrays in (values, bits)), budget)
    reached = sum(float(value[mask].sum()) for value, mask in zip(values, masks, strict=True))
    return masks, max(0.0, 1 - reached / bound) if bound else 0.0


def _nearest(kernel, kept, clusters):
    """Which of the weights that the ``kept`` entries would share is nearest to each entry."""
    if not kept.any():
        return np.zeros(kernel.shape, np.int64)
    centroids, _ = share_values(kernel[kept], clusters)
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, kernel)


def cut(network, masks):
    """A copy of a network with these edges of its Dense layers, without the channels that are left without."""
    network = add_masks(network)
    for layer, mask in zip(dense_layers(network), masks, strict=True):
        layer.prune(mask & (np.asarray(layer.kernel) != 0))
    return remove_dead_channels(network)[0]


def cut_to_file(network, choose, edges, largest, clusters, room=_ROOM):
    """Cut a network until its file, shared weights and all, just fits.

    Args:
        network: with masks; left untouched.
        choose: function ``(network, edges) -> masks``.
        edges: first guess of what it is given.
        largest: bytes of the file.
        clusters: different weights of a layer.
        room: of these bytes, which it may leave.

    Returns:
        ``(smaller network, edges)``.

    Raises:
        ValueError: if no file fits.
    """
    most = sum(int(np.count_nonzero(layer.kernel)) for layer in dense_layers(network))
    best, best_size, fits, exceeds = None, 0, 0, most + 1
    edges, room = min(max(round(edges), 1), most), max(room, _LEAST_ROOM / largest)
    for _ in range(_TRIALS):
        smaller = cut(network, choose(network, edges))
        shared = share_weights(smaller, clusters)
        round_small_vectors(shared)
        report = packed_report(shared)
        size = report.stored_bytes
        if best_size < size <= largest:
            best, best_size = (smaller, edges), size
        fits, exceeds = (edges, exceeds) if size <= largest else (fits, edges)
        if (1 - room) * largest <= size <= largest or exceeds - fits <= 1:
            break
        missing = (1 - room / 3) * largest - size
        edges = round(edges * (1 + missing / (report.code_bytes + report.index_bytes)))
        if not fits < edges < exceeds:
            edges = (fits + exceeds) // 2
    if best is None:
        raise ValueError(f"Expected a budget that a network fits into. Received: {largest:.0f} B for {size} B")
    return best


def round_small_vectors(model):
    """To float16, all of them: a bias that is next to nothing, which would keep its layer's in float32, becomes 0."""
    for layer in dense_layers(model):
        if layer.use_bias:
            layer.bias.assign(np.where(np.abs(layer.bias) < _SMALL, 0, layer.bias))
    round_vectors(model)
