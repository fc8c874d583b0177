"""One network made smaller in several ways; every row is cached."""

import keras
import numpy as np
from absl import logging

from lab import datasets
from lab.batches import statistics_images, training_batches
from lab.filter_clustering.config import CLUSTERINGS
from lab.filter_clustering.distillation import DistillationLoss, label_accuracy, with_answers
from lab.filter_clustering.measures import measure
from lab.optimization import one_cycle, sgd
from lab.stage import Stage, fingerprint
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.clustering import chain_counts, cluster_filters, find_chains, keep_filters
from scc_tf.pruning import largest_neurons, neuron_scores

__all__ = ["Study"]


class Study:
    """What the rows have in common.

    Args:
        network: Keras model of logits, functional; left untouched.
        config: `lab.filter_clustering.Config`.
        work_dir: folder (`pathlib.Path`) of the cached rows.
        verbose: as in ``fit``.
    """

    def __init__(self, network, config, work_dir, verbose=1):
        self.network, self.config, self.work_dir, self.verbose = network, config, work_dir, verbose
        self.data = datasets.load(config.data, config.data_dir or None)
        self.statistics_images = statistics_images(
            self.data.train, config.statistics_images, config.seed, config.shift, mirror=True
        )
        self._fingerprint = fingerprint(network)

    def baseline(self):
        """The measures of the network itself."""
        stage = self._stage("baseline", self.config.key(tuned=False, method="baseline"))
        if not stage.is_finished:
            stage.save(self.network, measure(self.network, self.data))
        return stage.record

    def row(self, point):
        """Make a smaller network, fine-tune it if asked to, and measure it; or take the measures of an earlier call.

        Args:
            point: `lab.filter_clustering.Point`.

        Returns:
            `measure`'s dictionary with ``method`` (`Point.series`), ``label``, ``clusters`` (one int per layer),
            ``epochs`` and ``draw``; with fine-tuning also its ``seconds``.
        """
        stage = self._stage(point.name, self._key(point))
        if not stage.is_finished:
            smaller = self.smaller(point)
            counts = [chain.channels for chain in find_chains(smaller)]
            if point.epochs:
                self._fine_tune(smaller, stage, point.epochs, counts)
            else:
                stage.save(smaller, {"clusters": counts, **measure(smaller, self.data)})
        record = stage.record
        named = {"method": point.series, "label": point.label, "epochs": point.epochs, "draw": point.draw}
        logging.info("%s: %.2f %% on validation", named, 100 * record["validation_accuracy"])
        return {**named, **record}

    def made(self, point):
        """The network of a point whose row there is.

        Args:
            point: `lab.filter_clustering.Point`.

        Returns:
            Keras model, not compiled.
        """
        stage = self._stage(point.name, self._key(point))
        # which filters are merged does not matter for the shape: no images, so this is quick
        model = cluster_filters(self.network, stage.record["clusters"])[0]
        stage.load(model)
        return model

    def smaller(self, point):
        """The network of a point before fine-tuning."""
        config, images = self.config, self.statistics_images
        if point.method in CLUSTERINGS:
            options = {"space": config.space, "merge": config.merge, **CLUSTERINGS[point.method]}
            return cluster_filters(self.network, point.clusters, images, **options)[0]
        chains, rng = find_chains(self.network), np.random.default_rng((config.seed, point.draw))
        kept = {}
        for chain, count in zip(chains, chain_counts(chains, point.clusters), strict=True):
            if point.method == "random":
                kept[chain.name] = largest_neurons(rng.permutation(chain.channels), count)
            else:
                scores = neuron_scores(keras.ops.convert_to_numpy(chain.layer.kernel))
                kept[chain.name] = largest_neurons(scores, count)
        return keep_filters(self.network, kept, images, fitted=point.method == "l1_fitted")

    def _fine_tune(self, model, stage, epochs, counts):
        config, train = self.config, self.data.train
        batches, steps = training_batches(
            train, config.batch_size, config.seed, config.shift, stage.finished_epochs, mirror=True
        )
        loss, metric = keras.losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy"
        if config.distillation:
            batches = with_answers(batches, self.network)
            loss, metric = DistillationLoss(config.distillation, config.temperature), label_accuracy
        schedule = one_cycle(config.learning_rate, steps * epochs)
        optimizer = sgd(model, schedule, momentum=0.9, weight_decay=config.weight_decay, average=0.0)
        # without XLA, whose convolutions take two to three times as long on a processor
        model.compile(optimizer, loss, metrics=[metric], jit_compile=False)

        def finish(model):
            reestimate_batch_statistics(model, self.statistics_images)
            return {"clusters": counts, **measure(model, self.data)}

        stage.train(model, (batches, steps), epochs, finish, self.verbose)

    def _key(self, point):
        return self.config.key(point.epochs > 0, point.method)

    def _stage(self, name, key):
        return Stage(self.work_dir / f"filters-{name}-{self._fingerprint}-{key}", backup="backup")
