"""The base of callbacks that act every so many training steps."""

import json
from pathlib import Path

import keras
from absl import logging

from scc_tf.atomic import atomic_path

__all__ = ["EveryNSteps"]


class EveryNSteps(keras.callbacks.Callback):
    """Calls `at_step` at the start of ``fit``, whenever ``every`` steps have passed, and at the end.

    Steps are the optimizer's iterations, so the rhythm survives an interruption and ``steps_per_execution``.
    The values that `at_step` returns are written into ``logs`` of that batch and all later ones, as floats, for
    the progress bar, ``History``, ``CSVLogger``, ``TensorBoard`` and ``EarlyStopping``.

    Args:
        every: training steps between two actions, at least 1.
        backup_dir: folder that keeps the history of an interrupted ``fit``, for use with ``BackupAndRestore``;
            emptied when ``fit`` ends.

    Attributes:
        history: one dictionary per action: ``step`` and the values of `at_step`.

    Raises:
        ValueError: if ``every`` is below 1.
    """

    names = ()  # of the values that `at_step` returns
    backup_name = "every_n_steps.json"

    def __init__(self, every, backup_dir=None):
        super().__init__()
        if every < 1:
            raise ValueError(f"Expected every to be at least 1 step. Received: every={every}")
        self.every = every
        self.history = []
        self._last_step = 0
        self._backup = Path(backup_dir) / self.backup_name if backup_dir else None

    @property
    def step(self):
        """Training steps taken so far."""
        return int(self.model.optimizer.iterations.numpy())

    @property
    def latest(self):
        """What the last call of `at_step` returned."""
        return {name: self.history[-1][name] for name in self.names} if self.history else {}

    def at_step(self, step):
        """Act; return a dictionary of floats, one for each of ``names``."""
        raise TypeError(f"{type(self).__name__} must override at_step(step)")

    def on_train_begin(self, logs=None):
        """Take up the history of an interrupted run, or act on the model as it starts."""
        self._last_step = self.step
        self.history = self._restored_history()
        if not self.history:
            self._act()

    def on_train_batch_end(self, batch, logs=None):
        """Act if a multiple of ``every`` was passed; write the latest values into ``logs``."""
        step = self.step
        if step // self.every > self._last_step // self.every:
            self._act()
        self._last_step = step
        self._write(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Write the latest values into ``logs``."""
        self._write(logs)

    def on_train_end(self, logs=None):
        """Act on the final weights; other callbacks may have changed them since the last step."""
        self._act()
        if self._backup:
            self._backup.unlink(missing_ok=True)

    def _act(self):
        entry = {"step": self.step, **self.at_step(self.step)}
        if self.history[-1:] == [entry]:
            return
        self.history.append(entry)
        if self._backup:
            with atomic_path(self._backup) as partial:
                partial.write_text(json.dumps(self.history))

    def _write(self, logs):
        if logs is not None:
            logs.update(self.latest)

    def _restored_history(self):
        step = self.step
        if step == 0 or self._backup is None or not self._backup.exists():
            return []
        try:
            history = json.loads(self._backup.read_text())
            if any(set(entry) != {"step", *self.names} for entry in history):
                raise ValueError("unexpected entries")
            return [entry for entry in history if entry["step"] <= step]  # the weights are those of `step`
        except (ValueError, TypeError) as error:
            logging.warning("The backup %s is damaged and was dropped: %s", self._backup, error)
            return []
