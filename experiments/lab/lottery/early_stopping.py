"""Early stopping on the validation loss that an interruption does not make forget."""

from typing import NamedTuple

import keras

from scc_tf.callbacks.fit_callback import FitCallback

__all__ = ["ResumableEarlyStopping", "Stop"]


class Stop(NamedTuple):
    """Where a training stopped."""

    best_epoch: int  # epochs up to the lowest validation loss, whose weights were restored
    epochs_run: int  # epochs trained, those of the patience among them
    validation_loss: float  # the lowest


class ResumableEarlyStopping(keras.callbacks.EarlyStopping, FitCallback):
    """Stop when the validation loss has not fallen for some epochs, and restore the weights where it was lowest.

    Args:
        patience: epochs.
        start_from_epoch: epochs before the loss is first looked at.
    """

    def __init__(self, patience, start_from_epoch=0):
        super().__init__(
            monitor="val_loss",
            mode="min",
            patience=patience,
            restore_best_weights=True,
            start_from_epoch=start_from_epoch,
        )
        self._epochs_run = 0

    @property
    def stop(self):
        """`Stop` of a training that has ended."""
        return Stop(self.best_epoch + 1, self._epochs_run, float(self.best))

    def on_train_begin(self, logs=None):
        """Remember an interrupted training."""
        super().on_train_begin(logs)
        self._epochs_run = 0
        self.take_up()

    def on_epoch_end(self, epoch, logs=None):
        """Look at the loss."""
        super().on_epoch_end(epoch, logs)
        self._epochs_run = epoch + 1

    def state(self):
        """The lowest loss, its weights, and how long ago it was."""
        return {
            "epochs_run": self._epochs_run,
            "wait": self.wait,
            "best_epoch": self.best_epoch,
            "best": None if self.best is None else float(self.best),
            "weights": self.best_weights,
        }

    def restore(self, state):
        """Go on with them."""
        self._epochs_run, self.wait, self.best_epoch = (state[name] for name in ("epochs_run", "wait", "best_epoch"))
        self.best, self.best_weights = state["best"], state["weights"]
