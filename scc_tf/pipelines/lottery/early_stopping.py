"""Early stopping on the validation loss that an interruption does not make forget."""

from typing import NamedTuple

import keras
import numpy as np

from scc_tf.atomic import atomic_path
from scc_tf.pipelines.stage import intact

__all__ = ["ResumableEarlyStopping", "Stop"]


class Stop(NamedTuple):
    """Where a training stopped."""

    best_epoch: int  # epochs up to the lowest validation loss, whose weights were restored
    epochs_run: int  # epochs trained, those of the patience among them
    validation_loss: float  # the lowest


class ResumableEarlyStopping(keras.callbacks.EarlyStopping):
    """Stop when the validation loss has not fallen for some epochs, and restore the weights where it was lowest.

    The lowest loss, its weights and how long ago it was are kept in a file after every epoch, since the backup
    of a `scc_tf.pipelines.stage.Stage` holds none of them.

    Args:
        path: `pathlib.Path` of that file (``.npz``).
        patience: epochs.
        start_from_epoch: epochs before the loss is first looked at.
    """

    def __init__(self, path, patience, start_from_epoch=0):
        super().__init__(
            monitor="val_loss",
            mode="min",
            patience=patience,
            restore_best_weights=True,
            start_from_epoch=start_from_epoch,
        )
        self._path, self._epochs_run = path, 0

    @property
    def finished_epochs(self):
        """How many epochs the file knows of; 0 without one."""
        return self._read().get("epochs_run", 0)

    @property
    def stop(self):
        """`Stop` of a training that has ended."""
        return Stop(self.best_epoch + 1, self._epochs_run, float(self.best))

    def on_train_begin(self, logs=None):
        """Remember an interrupted training."""
        super().on_train_begin(logs)
        self._epochs_run = 0
        if state := self._read():
            self._epochs_run = state["epochs_run"]
            self.wait, self.best_epoch, self.best = state["wait"], state["best_epoch"], state["best"]
            self.best_weights = state["weights"]

    def on_epoch_end(self, epoch, logs=None):
        """Look at the loss, and keep what a session to come needs."""
        super().on_epoch_end(epoch, logs)
        self._epochs_run = epoch + 1
        weights = self.best_weights or []
        numbers = [self._epochs_run, self.wait, self.best_epoch, np.inf if self.best is None else self.best]
        with atomic_path(self._path) as partial:
            np.savez(partial, numbers, *weights)

    def forget(self):
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    def _read(self):
        if not self._path.exists():
            return {}
        with intact(self._path), np.load(self._path) as file:
            (epochs_run, wait, best_epoch, best), *weights = (file[name] for name in file.files)
        return {
            "epochs_run": int(epochs_run),
            "wait": int(wait),
            "best_epoch": int(best_epoch),
            "best": float(best) if weights else None,
            "weights": weights or None,
        }
