"""A training that is cached in the work folder, and that goes on from its last epoch where it was interrupted."""

import contextlib
import hashlib
import json
import shutil
import time

import numpy as np

from scc_tf.atomic import atomic_path
from scc_tf.callbacks import BackupAndRestore, RaiseOnNaN
from scc_tf.callbacks.fit_callback import FitCallback

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
        backup: folder in it, of the `scc_tf.callbacks.BackupAndRestore`; it is gone once the stage is finished, with
            all that is in it.
    """

    def __init__(self, folder, backup):
        self.folder = folder
        self._weights, self._record = folder / "model.weights.h5", folder / "record.json"
        self._folder = folder / backup
        self._backup = BackupAndRestore(self._folder, keep=True)

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
        return self._backup.finished_epochs

    def load(self, model):
        """Put the weights of a finished stage into the model; returns the record."""
        self._tidy()  # it may have been stopped just before that
        _load_weights(model, self._weights)
        return self.record

    def save(self, model, record):
        """Finish: write the model's weights and the record."""
        with atomic_path(self._weights) as partial:
            model.save_weights(partial)
        _write_json(self._record, record)
        self._tidy()

    def _tidy(self):
        """Remove the backup, and what a kill left half written."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for partial in self.folder.glob(".*-partial-*"):
            partial.unlink(missing_ok=True)

    def fit(self, model, batches, epochs, callbacks=(), verbose=1, validation=None):
        """Train, from where an interrupted training stopped.

        Nothing is lost if what comes after the training is interrupted: its last epoch is kept until `save`.

        Args:
            model: compiled Keras model.
            batches: ``(tf.data.Dataset, steps per epoch)`` of `training_batches`, from `finished_epochs` on.
            epochs: in all sessions together.
            callbacks: what else happens during ``fit``; the states of those that have one are kept, too.
            verbose: as in ``fit``.
            validation: ``(inputs, labels)`` to evaluate after every epoch, or None.

        Returns:
            Seconds of all sessions.
        """
        clock, (dataset, steps) = Clock(), batches
        model.fit(
            dataset,
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=[RaiseOnNaN(), *callbacks, clock, self._backup],
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
        seconds = self.fit(model, batches, epochs, verbose=verbose)
        record = {"seconds": seconds, **finish(model)}
        self.save(model, record)
        return record


class Clock(FitCallback):
    """Seconds of a training over all its sessions, as of now; epochs that were lost are not counted."""

    def __init__(self):
        super().__init__()
        self._before, self._started = 0.0, time.monotonic()

    @property
    def seconds(self):
        """Seconds of all sessions."""
        return self._before + time.monotonic() - self._started

    def on_train_begin(self, logs=None):
        """Take up the time of an interrupted training."""
        self.take_up()

    def state(self):
        """The seconds so far."""
        return {"seconds": self.seconds}

    def restore(self, state):
        """Add them to those of this session."""
        self._before = float(state["seconds"])


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
