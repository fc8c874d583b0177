"""The trainings of Deep Compression: the float network, rounds of pruning, shared weights. Each is cached."""

import zlib

import keras
from absl import logging

from lab import models
from lab.batches import training_batches
from lab.optimization import one_cycle
from lab.stage import Stage, error_percent
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.conversion import add_masks, share_weights
from scc_tf.finishing.rounding import round_vectors
from scc_tf.keras_private import all_layers
from scc_tf.layers import Masked, kernels_of
from scc_tf.protocols.deep_compression import densities, prune_smallest

__all__ = ["Trainer", "float_network", "pruned_networks", "shared_network", "weights_by_layer"]

STATISTICS_IMAGES = 4096
_FLOAT = ("model", "seed", "float_epochs", "batch_size", "learning_rate", "weight_decay", "dropout", "shift")
_PRUNED = (*_FLOAT, "rounds", "round_epochs", "last_epochs", "density", "retrain_factor")
_TUNED = ("start", "tune_factor")


class Trainer:
    """What the trainings of one run have in common.

    Args:
        config: `lab.deep_compression.Config`.
        data: `scc_tf.datasets.Dataset`.
        work_dir: folder (`pathlib.Path`) of the cached stages.
        verbose: as in ``fit``.
    """

    def __init__(self, config, data, work_dir, verbose=1):
        self.config, self.data, self.work_dir, self.verbose = config, data, work_dir, verbose

    def train(self, model, name, learning_rate, weight_decay, *, epochs=None, steps=None, finish=None):
        """Train a model for epochs or steps and ``finish`` it, or load it as it was after that.

        Returns:
            The stage's record: seconds, and validation and test error in per cent. Nothing is chosen by the latter.
        """
        stage = Stage(self.work_dir / name, backup="backup")
        config = self.config
        batches, per_epoch = training_batches(
            self.data.train,
            config.batch_size,
            config.seed + zlib.crc32(name.encode()),  # another order in every stage
            config.shift,
            stage.finished_epochs,
            mirror=self.data.name == "cifar10",
        )
        if steps:
            epochs, per_epoch = 1, steps
        optimizer = keras.optimizers.AdamW(one_cycle(learning_rate, per_epoch * epochs), weight_decay=weight_decay)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # without XLA, whose convolutions take two to three times as long on a processor
        model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)

        def finished(model):
            reestimate_batch_statistics(model, self.data.train.images[:STATISTICS_IMAGES])
            if finish is not None:
                finish(model)
            return {
                "validation_error": error_percent(model, self.data.validation),
                "test_error": error_percent(model, self.data.test),
            }

        return stage.train(model, (batches, per_epoch), epochs, finished, self.verbose)


def float_network(trainer):
    """Train the network that is to be compressed; returns it and its record."""
    config = trainer.config
    extra = {"dropout": config.dropout} if config.dropout else {}
    model = getattr(models, config.model)(seed=config.seed, **extra)
    name = f"{config.model}-float-{config.key(*_FLOAT)}"
    return model, trainer.train(model, name, config.learning_rate, config.weight_decay, epochs=config.float_epochs)


def pruned_networks(trainer, model):
    """Prune in rounds: the smallest weights of the whole network go, so do neurons that are left without; retrain.

    Args:
        trainer: `Trainer`.
        model: the float network, left untouched.

    Yields:
        ``(network, record)`` after each round. The network of a round goes on to the next: use it, and leave it as it
        is.

    Source: Han et al. 2015, "Learning both Weights and Connections" (arXiv 1506.02626), sections 3.1 to 3.5: weights
        that stay are not initialized anew, a retraining has a smaller learning rate, dropout is rescaled.
    """
    config = trainer.config
    original = weights_by_layer(model)
    total, rate = sum(original.values()), config.learning_rate * config.retrain_factor
    masked = add_masks(model)
    for number, density in enumerate(densities(config.density, config.rounds), start=1):
        masked, report = prune_smallest(masked, density * total)
        logging.info("Round %d: %s", number, report)
        _rescale_dropout(masked, original, config.dropout)
        epochs = config.last_epochs if number == config.rounds else config.round_epochs
        name = f"{config.model}-pruned-{number}-{config.key(*_PRUNED)}"
        record = trainer.train(masked, name, rate, config.weight_decay, epochs=epochs)
        left = {layer.name: int((kernel != 0).sum()) for layer, kernel in _kernels(masked)}
        yield masked, {"density": sum(left.values()) / total, "left": left, **record}


def weights_by_layer(model):
    """``{layer name: weights of its kernel}``."""
    return {layer.name: kernel.size for layer, kernel in _kernels(model)}


def _kernels(model):
    """``(layer, kernel)`` for every layer whose weights can be pruned, kernels as arrays."""
    found = [layer for layer in all_layers(model) if kernels_of(layer)]
    return [(layer, keras.ops.convert_to_numpy(layer.kernel)) for layer in found]


def _rescale_dropout(model, original, rate):
    """``D_r = D_o sqrt(C_r / C_o)``, C the connections of the layer whose neurons are dropped.

    Source: arXiv 1506.02626, section 3.2, eq. 2.
    """
    connections = None
    for layer in model.layers:
        if isinstance(layer, Masked):
            connections = int(keras.ops.count_nonzero(layer.kernel)) / original[layer.name]
        elif isinstance(layer, keras.layers.Dropout) and connections is not None:
            layer.rate = rate * connections**0.5


def shared_network(trainer, model, label, clusters, steps, pruned=True):
    """Share the weights of a network and train what they share; returns the network and its record.

    Biases, normalization parameters and centroids are rounded to float16 in the end.

    Args:
        trainer: `Trainer`.
        model: the network, pruned or not; left untouched.
        label: names the network in the work folder.
        clusters: different weights of a layer.
        steps: of training.
        pruned: whether the network has been pruned, and so depends on the settings of that.
    """
    config = trainer.config
    shared = share_weights(model, clusters, config.start, config.seed)
    key = config.key(*(_PRUNED if pruned else _FLOAT), *_TUNED)
    name = f"{config.model}-shared-{label}-{clusters}-{steps}-{key}"
    rate = config.learning_rate * config.tune_factor
    record = trainer.train(shared, name, rate, 0.0, steps=steps, finish=round_vectors)
    return shared, {"clusters": clusters, **record}
