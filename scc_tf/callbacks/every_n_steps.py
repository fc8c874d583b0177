"""The base of callbacks that act every so many training steps."""

import keras

__all__ = ["EveryNSteps"]


class EveryNSteps(keras.callbacks.Callback):
    """Calls `at_step` whenever the optimizer has passed a multiple of ``every`` steps.

    Steps are the optimizer's iterations, so the rhythm survives an interruption and ``steps_per_execution``.
    The values that `at_step` returns are written into ``logs`` of that batch and all later ones, as floats, for
    the progress bar, ``History``, ``CSVLogger``, ``TensorBoard`` and ``EarlyStopping``.

    Args:
        every: training steps between two actions, at least 1.

    Raises:
        ValueError: if ``every`` is below 1.
    """

    def __init__(self, every):
        super().__init__()
        if every < 1:
            raise ValueError(f"Expected every to be at least 1 step. Received: every={every}")
        self.every = every
        self.latest = {}
        self._last_step = 0

    @property
    def step(self):
        """Training steps taken so far."""
        return int(self.model.optimizer.iterations.numpy())

    def at_step(self, step):
        """Act; return a dictionary of floats for ``logs``."""
        raise TypeError(f"{type(self).__name__} must override at_step(step)")

    def on_train_begin(self, logs=None):
        """Take the step to count from."""
        self._last_step = self.step

    def on_train_batch_end(self, batch, logs=None):
        """Act if a multiple of ``every`` was passed; write the latest values into ``logs``."""
        step = self.step
        if step // self.every > self._last_step // self.every:
            self.latest = self.at_step(step)
        self._last_step = step
        self._write(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Write the latest values into ``logs``."""
        self._write(logs)

    def _write(self, logs):
        if logs is not None:
            logs.update(self.latest)
