"""The base of callbacks that know something, and must still know it after an interruption."""

import keras
from absl import logging

from scc_tf.arguments import check_folder
from scc_tf.callbacks.state_files import StateFiles, pack, unpack

__all__ = ["BACKUP", "RESUMABLES", "Resumable"]

RESUMABLES, BACKUP = "resumables", "backup"  # in the params, which all callbacks of a fit share
_EPOCHS, _ACTIONS = 2, 16  # ends of epochs, and last actions, whose states are kept


class Resumable(keras.callbacks.Callback):
    """A callback whose state outlives an interruption.

    `state` gives it and `restore` takes it. `scc_tf.callbacks.BackupAndRestore` keeps the states of all callbacks of
    its ``fit`` in the file of the weights. Beside the one of Keras, a callback with a ``backup_dir`` has files of its
    own there, one for each of its last actions: after an interruption it takes up the newest that is no newer than the
    weights.

    Args:
        backup_dir: folder of these files, or None.

    Raises:
        ValueError: if ``backup_dir`` cannot be a folder.
    """

    backup_name = "resumable"  # what its files begin with

    def __init__(self, backup_dir=None):
        super().__init__()
        self._files = None
        if backup_dir is not None:
            self._files = StateFiles(check_folder("backup_dir", backup_dir), self.backup_name, ".npz")
        self._epoch_ends = []

    def state(self):
        """All that decides what this callback does next: a dictionary of JSON values and arrays."""
        raise TypeError(f"{type(self).__name__} must override state()")

    def restore(self, state):
        """Take the state of an interrupted run; one that is damaged raises anything, and changes nothing."""
        raise TypeError(f"{type(self).__name__} must override restore(state)")

    def set_params(self, params):
        """Join the callbacks of this ``fit`` that have a state: they all get the same ``params``."""
        super().set_params(params)
        if params is not None and self not in (others := params.setdefault(RESUMABLES, [])):
            others.append(self)

    def take_up(self):
        """Restore the state that belongs to the weights, when ``fit`` begins; returns whether there is one."""
        backup = (self.params or {}).get(BACKUP)
        if backup is not None:
            state = backup.state_of(self)
            return state is not None and self._takes(lambda: state, backup.path)
        step = int(self.model.optimizer.iterations.numpy())
        self._epoch_ends = [step]
        if self._files is None:
            return False
        older = [(number, path) for number, path in self._files.numbered() if step > 0 and number <= step]
        taken = any(self._takes(lambda path=path: unpack(path.read_bytes()), path) for _, path in older)
        # newer ones are of a future that did not come; at the first step, all are of another run
        self._files.drop([number for number, _ in older])
        return taken

    def keep(self):
        """Write the state after an action."""
        if self._files is None:
            return
        step = int(self.model.optimizer.iterations.numpy())
        with self._files.write(step) as partial:
            partial.write_bytes(pack(self.state()))
        numbers = [number for number, _ in self._files.numbered()]
        at_ends = [next((n for n in numbers if n <= end), None) for end in self._epoch_ends[-_EPOCHS:]]
        self._files.drop([*numbers[:_ACTIONS], *at_ends])

    def on_epoch_end(self, epoch, logs=None):
        """Note the step, whose state is kept for longer."""
        self._epoch_ends.append(int(self.model.optimizer.iterations.numpy()))

    def forget(self):
        """Remove the files, when ``fit`` is over."""
        if self._files is not None:
            self._files.drop()

    def _takes(self, read, source):
        try:
            self.restore(read())
        except Exception as error:  # a damaged archive raises a dozen unrelated types
            logging.warning("The backup %s is damaged and was dropped: %s", source, error)
            return False
        return True
