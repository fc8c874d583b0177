"""The trainings of the lottery-ticket protocols, all with the same early stopping, each cached with its measures."""

import json
import time

import keras

from lab.batches import training_batches
from lab.lottery.early_stopping import ResumableEarlyStopping
from lab.lottery.full_batch import FullBatch
from lab.lottery.measures import VERSION, measure
from lab.stage import Stage, intact
from scc_tf.atomic import atomic_path

__all__ = ["Trainer"]

_MIRRORED = ("cifar10",)  # data sets whose images may be flipped left to right


class Trainer:
    """What the trainings of all seeds have in common.

    Every training starts with a fresh Adam on exactly the variables of the network that it gets.

    Args:
        config: `lab.lottery.Config`.
        data: `scc_tf.datasets.Dataset`.
        ood_images: ``(M, ...)``, or None.
        work_dir: folder (`pathlib.Path`) of the cached stages.
        verbose: as in ``fit``.
    """

    def __init__(self, config, data, ood_images, work_dir, verbose=1):
        self.config, self.data, self.ood_images = config, data, ood_images
        self.work_dir, self.verbose = work_dir, verbose
        self._full_batch = None if config.batch_size else FullBatch(config, data)

    @property
    def steps_per_epoch(self):
        """Of every training."""
        return len(self.data.train.labels) // self.config.batch_size if self.config.batch_size else 1

    def train(self, network, name, seed, steps=None):
        """Train a network in place until its validation loss no longer falls, or load it as it was after that.

        Args:
            network: Keras model of logits.
            name: of the stage in the work folder.
            seed: of the order of the examples, the same in all trainings of a run.
            steps: train for so many steps and keep the last weights instead.

        Returns:
            ``best_epoch``, ``epochs_run``, ``validation_loss`` (see `Stop`) and ``seconds``; with ``steps`` nothing.
        """
        stage = Stage(self.work_dir / name, backup="backup")
        if stage.is_finished:
            return stage.load(network)
        for measures in stage.folder.glob("measures-*.json"):  # of weights that were lost
            measures.unlink()
        record = self._first_steps(network, seed, steps) if steps else self._until_it_stops(network, stage, seed)
        stage.save(network, record)
        return record

    def measured(self, network, name):
        """`measure` of a network that `train` has finished, cached in its stage."""
        of = self.config.ood or ("ood" if self.ood_images is not None else "")
        path = self.work_dir / name / f"measures-{VERSION}{of and '-'}{of}.json"
        if path.exists():
            with intact(path):
                return json.loads(path.read_text())
        values = measure(network, self.data, self.ood_images)
        with atomic_path(path) as partial:
            partial.write_text(json.dumps(values, indent=1))
        return values

    def _first_steps(self, network, seed, steps):
        if self._full_batch:
            self._full_batch.fit(network, epochs=steps)
        else:
            dataset, _ = self._batches(seed, skip_epochs=0)
            self._compile(network)
            network.fit(dataset, steps_per_epoch=steps, verbose=self.verbose, shuffle=False)
        return {}

    def _until_it_stops(self, network, stage, seed):
        if self._full_batch:
            started = time.monotonic()
            stop = self._full_batch.fit(network)
            seconds = time.monotonic() - started
        else:
            stop, seconds = self._fit(network, stage, seed)
        return {**stop._asdict(), "seconds": seconds}

    def _fit(self, network, stage, seed):
        config = self.config
        early = ResumableEarlyStopping(config.patience, config.start_from_epoch)
        self._compile(network)
        batches = self._batches(seed, stage.finished_epochs)
        validation = (self.data.validation.images, self.data.validation.labels)
        seconds = stage.fit(network, batches, config.epochs, [early], self.verbose, validation)
        return early.stop, seconds

    def _batches(self, seed, skip_epochs):
        config, mirror = self.config, self.data.name in _MIRRORED
        return training_batches(self.data.train, config.batch_size, seed, config.shift, skip_epochs, mirror)

    def _compile(self, network):
        optimizer = keras.optimizers.Adam(self.config.learning_rate)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # without XLA, whose convolutions take two to three times as long on a processor
        network.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
        optimizer.build(network.trainable_variables)  # so that its state can be loaded
