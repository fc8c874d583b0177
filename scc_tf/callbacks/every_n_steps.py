"""The base of callbacks that act every so many training steps."""

import hashlib

from absl import logging

from scc_tf.arguments import check_count
from scc_tf.callbacks.resumable import Resumable

__all__ = ["EveryNSteps"]


class EveryNSteps(Resumable):
    """Calls `at_step` at the start of ``fit``, whenever ``every`` steps have passed, and on the final weights.

    Steps are the optimizer's iterations, so the rhythm survives an interruption and ``steps_per_execution``.
    The values that `at_step` returns are written into ``logs`` of that batch and all later ones, as floats, for
    the progress bar, ``History``, ``CSVLogger``, ``TensorBoard`` and ``EarlyStopping``.

    Args:
        every: training steps between two actions, at least 1.
        backup_dir: folder that keeps the history of an interrupted ``fit``, for use with the ``BackupAndRestore`` of
            Keras; emptied when ``fit`` ends. That of `scc_tf.callbacks` needs none.

    Attributes:
        history: one dictionary per action: ``step`` and the values of `at_step`. The last one is of the weights
            that ``fit`` leaves.
        active: whether its ``fit`` has begun and has not ended.

    Raises:
        ValueError: if ``every`` is no whole number of at least 1, or ``backup_dir`` cannot be a folder.
    """

    names = ()  # of the values that `at_step` returns
    starts_anew = ""  # what does so in a fit that goes on without the history of the one before, if anything
    backup_name = "every_n_steps"

    def __init__(self, every, backup_dir=None):
        super().__init__(backup_dir)
        self.every = check_count("every", every)
        self.history = []
        self.active = False
        self._last_step = 0
        self._acted_on = None

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
        self.active, self.history, self._acted_on = True, [], None
        taken_up = self.take_up()
        self._last_step = self.step
        if not taken_up:
            if self.starts_anew and self.step > 0:
                self._tell_what_starts_anew()
            self.act()

    def on_train_batch_end(self, batch, logs=None):
        """Act if a multiple of ``every`` was passed; write the latest values into ``logs``."""
        step = self.step
        if step // self.every > self._last_step // self.every:
            self.act()
        self._last_step = step
        self._write(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Write the latest values into ``logs``."""
        super().on_epoch_end(epoch, logs)
        self._write(logs)

    def on_train_end(self, logs=None):
        """Act on the last weights; other callbacks may have changed them since the last step."""
        self.act()
        if not getattr(self.model, "in_fit", False):  # a plain Keras model, or a loop of one's own
            self.on_fit_end()

    def on_fit_end(self):
        """Act on the weights that ``on_train_end`` of the other callbacks has left; see `SelfCompressingModel.fit`."""
        self.act()
        self.active = False
        self.forget()

    def act(self):
        """Act now, unless step and weights are those of the last action: the same evidence must not count twice."""
        if self._evidence() == self._acted_on:
            return
        self.history.append({"step": self.step, **self.at_step(self.step)})
        self._acted_on = self._evidence()  # afterwards: acting may re-estimate batch statistics
        if self.active:
            self.keep()

    def state(self):
        """The history, and what it was last measured on."""
        return {"history": self.history, "acted_on": self._acted_on}

    def restore(self, state):
        """Go on with a history."""
        history, acted_on = [dict(entry) for entry in state["history"]], state["acted_on"]
        if not history or any(set(entry) != {"step", *self.names} for entry in history):
            raise ValueError("unexpected entries")
        self.history, self._acted_on = history, acted_on

    def _evidence(self):
        digest = hashlib.blake2b()
        for weight in self.model.get_weights():
            digest.update(weight.tobytes())
        return [self.step, digest.hexdigest()]

    def _write(self, logs):
        if logs is not None:
            logs.update(self.latest)

    def _tell_what_starts_anew(self):
        """A run that was interrupted and a second fit of the same model look alike here."""
        logging.log(
            logging.WARNING if self._files else logging.INFO,
            "Fit starts at step %d, and %s finds no history of its own (%s): %s. If this fit goes on with an "
            "interrupted one, the remedy is scc_tf.callbacks.BackupAndRestore, or a backup_dir, the same in both.",
            self.step,
            type(self).__name__,
            f"in {self._files.folder}" if self._files else "no backup_dir",
            self.starts_anew,
        )
