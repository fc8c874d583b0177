"""A training that is cached in the work folder, and that goes on from its last epoch where it was interrupted."""

import contextlib
import hashlib
import json
import time

import keras
import numpy as np

from scc_tf.atomic import atomic_path
from scc_tf.callbacks import RaiseOnNaN
from scc_tf.pipelines.backup import Backup

__all__ = ["Clock", "Stage", "accuracy", "error_percent", "fingerprint", "intact"]


def accuracy(model, split):
    """Share of a split that a compiled model gets right."""
    results = model.evaluate(split.images, split.labels, batch_size=500, verbose=0, return_dict=True)
    return float(results["accuracy"])


def error_percent(model, split):
    """Share of a split that a compiled model gets wrong, per cent."""
    return 100 * (1 - accuracy(model, split))


def fingerprint(model):
    """A short hash of a model's weights, for the names of the stages that begin with them."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()[:8]


class Stage:
    """One training in the work folder: its weights and record once finished, its backup before.

    Args:
        folder: `pathlib.Path` of the stage.
        backup: folder in it, of the `scc_tf.pipelines.backup.Backup`; gone once the stage is finished.
    """

    def __init__(self, folder, backup):
        self.folder = folder
        self._weights, self._record = folder / "model.weights.h5", folder / "record.json"
        self._backup, self._seconds = Backup(folder / backup), folder / "seconds.json"

    @property
    def is_finished(self):
        """Whether weights and record are there."""
        return self._weights.exists() and self._record.exists()

    @property
    def record(self):
        """Of a finished stage."""
        return _read_json(self._record)

    @property
    def finished_epochs(self):
        """How many epochs of an interrupted training its backup holds."""
        return self._backup.newest[0]

    def load(self, model):
        """Put the weights of a finished stage into the model; returns the record."""
        _load_weights(model, self._weights)
        return self.record

    def save(self, model, record):
        """Finish: write the model's weights and the record."""
        with atomic_path(self._weights) as partial:
            model.save_weights(partial)
        _write_json(self._record, record)
        self._seconds.unlink(missing_ok=True)
        self.forget()

    def forget(self):
        """Drop the backup of an interrupted training, which starts over then."""
        self._backup.forget()

    def fit(self, model, batches, epochs, callbacks=(), verbose=1, validation=None, *, keep_backup=False):
        """Train, from where an interrupted training stopped.

        Args:
            model: compiled Keras model.
            batches: ``(tf.data.Dataset, steps per epoch)`` of `training_batches`, from `finished_epochs` on.
            epochs: in all sessions together.
            callbacks: what else happens during ``fit``.
            verbose: as in ``fit``.
            validation: ``(inputs, labels)`` to evaluate after every epoch, or None.
            keep_backup: whether the backup stays until `save`, so that nothing is lost if what comes after a long
                training is interrupted. Not with callbacks whose own backups end with ``fit``.

        Returns:
            Seconds of all sessions.
        """
        finished, state = self._backup.newest
        clock = Clock(self._seconds, going_on=finished > 0)
        if finished:
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)  # so that its state can be loaded
            _load_weights(model, state)
        # an epoch is finished when all that the others keep of it has been written
        callbacks = [RaiseOnNaN(), *callbacks, self._backup, clock]
        if not keep_backup:  # what the others kept goes next: without it the backup would be half of the truth
            callbacks.append(keras.callbacks.LambdaCallback(on_train_end=lambda logs: self.forget()))
        dataset, steps = batches
        model.fit(
            dataset,
            initial_epoch=finished,
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=callbacks,
            verbose=verbose,
            validation_data=validation,
            validation_batch_size=500,
            shuffle=False,  # the batches are shuffled
        )
        return clock.seconds

    def train(self, model, batches, epochs, finish, verbose=1):
        """Train, finish and save, or load what an earlier call saved. A stop after the training costs none of it.

        Args:
            model: compiled Keras model.
            batches: ``(tf.data.Dataset, steps per epoch)`` of `training_batches`, from `finished_epochs` on.
            epochs: in all sessions together.
            finish: function of the trained model; it may change the weights, and returns what the record says of it.
            verbose: as in ``fit``.

        Returns:
            The record: ``seconds`` of all sessions, and what ``finish`` returned.
        """
        model.optimizer.build(model.trainable_variables)  # so that its state can be loaded
        if self.is_finished:
            return self.load(model)
        seconds = self.fit(model, batches, epochs, verbose=verbose, keep_backup=True)
        record = {"seconds": seconds, **finish(model)}
        self.save(model, record)
        return record


class Clock(keras.callbacks.Callback):
    """Seconds of a training over all its sessions, as of now; epochs that were lost are not counted.

    Args:
        path: JSON file of the seconds up to the last finished epoch.
        going_on: whether an interrupted training goes on.
    """

    def __init__(self, path, going_on):
        super().__init__()
        self._path = path
        self._before = _read_json(path).get("seconds", 0.0) if going_on else 0.0
        self._started = time.monotonic()

    @property
    def seconds(self):
        """Seconds of all sessions."""
        return self._before + time.monotonic() - self._started

    def on_epoch_end(self, epoch, logs=None):
        """Keep the time for a session to come."""
        _write_json(self._path, {"seconds": self.seconds})


@contextlib.contextmanager
def intact(path):
    """Read ``path`` in this block: whatever a damaged file raises becomes a ValueError that says what to do."""
    try:
        yield
    except Exception as error:  # damaged HDF5, zip and JSON files raise unrelated types
        raise ValueError(
            f"Expected a file that an earlier run wrote. Received: {path}, which is damaged; delete it and run again. "
            f"({error})"
        ) from error


def _load_weights(model, path):
    with intact(path):
        model.load_weights(path)


def _read_json(path):
    """The dictionary in a file; an empty one where there is no file."""
    if not path.exists():
        return {}
    with intact(path):
        return dict(json.loads(path.read_text()))


def _write_json(path, values):
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(values, indent=1))
