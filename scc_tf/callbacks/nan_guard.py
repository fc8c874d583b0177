"""Fail loudly when training has diverged."""

import math

import keras
import numpy as np

__all__ = ["RaiseOnNaN"]


class RaiseOnNaN(keras.callbacks.Callback):
    """Raises ``FloatingPointError`` when the loss, or at the end of an epoch a weight, is not finite.

    ``keras.callbacks.TerminateOnNaN`` ends ``fit`` as if it had succeeded, so a script would go on and save a
    broken model; this one does not let it. List it before what writes files, ``BackupAndRestore`` included: the
    last step of an epoch can break the weights and still report a finite loss. Changes nothing in the model or
    ``logs``.

    Raises:
        FloatingPointError: from ``fit``, with the step and the loss or the weight.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Check the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            self._fail("loss", f"loss={loss}")

    def on_epoch_end(self, epoch, logs=None):
        """Check the weights."""
        for weight in self.model.weights:
            if not np.isfinite(np.asarray(weight)).all():
                self._fail("weights", f"weight={weight.path}")

    def _fail(self, what, received):
        step = int(self.model.optimizer.iterations.numpy())
        raise FloatingPointError(
            f"Expected finite {what}. Received: {received} at step {step}. Lower the learning rate or gamma, "
            "or look for NaN in the data."
        )
