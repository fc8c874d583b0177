"""Fail loudly when training has diverged."""

import math

import numpy as np

from scc_tf.callbacks.fit_callback import FitCallback

__all__ = ["RaiseOnNaN"]


class RaiseOnNaN(FitCallback):
    """Raises ``FloatingPointError`` when the loss, or at the end of an epoch a weight, is not finite.

    ``keras.callbacks.TerminateOnNaN`` looks at the loss alone. The last step of an epoch can break the weights and
    still report a finite loss, and a checkpoint would then hold a broken model.

    Raises:
        FloatingPointError: from ``fit``, with the step and the loss or the weight.
    """

    rank = -1

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
        raise FloatingPointError(
            f"Expected finite {what}. Received: {received} at step {self.step}. Lower the learning rate or gamma, "
            "or look for NaN in the data."
        )
