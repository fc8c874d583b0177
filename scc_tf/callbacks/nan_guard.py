"""Fail loudly when training has diverged."""

import math

import keras

__all__ = ["RaiseOnNaN"]


class RaiseOnNaN(keras.callbacks.Callback):
    """Raises ``FloatingPointError`` when the loss is not finite; changes nothing in the model or ``logs``.

    ``keras.callbacks.TerminateOnNaN`` ends ``fit`` as if it had succeeded, so a script would go on and save a
    broken model; this one does not let it.

    Raises:
        FloatingPointError: from ``fit``, with the step and the loss.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Check the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            step = int(self.model.optimizer.iterations.numpy())
            raise FloatingPointError(
                f"Expected a finite loss. Received: loss={loss} at step {step}. Lower the learning rate or gamma, "
                "or look for NaN in the data."
            )
