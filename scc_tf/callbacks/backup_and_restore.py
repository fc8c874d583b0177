"""All that an interrupted fit needs to go on as if nothing had happened, in one file."""

import hashlib

import h5py
import keras
import numpy as np
from absl import logging

from scc_tf.arguments import check_folder, received
from scc_tf.callbacks.resumable import BACKUP, RESUMABLES
from scc_tf.callbacks.state_files import StateFiles, pack, unpack
from scc_tf.graph import running_state

__all__ = ["BackupAndRestore"]

_STATE = "scc_tf"  # dataset in the weights file; Keras does not look at what it does not know


class BackupAndRestore(keras.callbacks.Callback):
    """Keeps the state of a ``fit`` after each epoch, and goes on from it after an interruption, a kill included.

    One file has it whole: weights, optimizers, gamma, the channels that were cut, the random state of the layers, and
    what the other callbacks of `scc_tf.callbacks` know; they need no ``backup_dir``. It is written beside the last one
    and takes its place in one step, so weights and callbacks agree whenever the process is killed. The one before is
    kept, too, and is taken where the newest is damaged. The files are removed when ``fit`` ends.

    What goes on is the same run, bit for bit on the same processor, if the data are: in an order that depends on the
    epoch alone, as `finished_epochs` lets a script choose it. With ``shuffle=True`` Keras draws another order.

    List it last: an epoch is finished when all others have seen its end. It puts the weights back before they begin.
    Keras's callbacks (``EarlyStopping``, ``ReduceLROnPlateau``) have no state to keep, and begin anew.

    Args:
        backup_dir: folder for these files alone.
        keep: whether the files of a ``fit`` that has ended stay, until `forget`. The next ``fit`` then trains nothing.

    Raises:
        ValueError: if ``backup_dir`` cannot be a folder; from ``fit``, if its weights are of another model.

    Example:
        >>> backup = scc_tf.callbacks.BackupAndRestore("backup")                # doctest: +SKIP
        >>> compressed.fit(batches, epochs=9, callbacks=[monitor, restoration, backup])     # doctest: +SKIP
    """

    def __init__(self, backup_dir, *, keep=False):
        super().__init__()
        self._files = StateFiles(check_folder("backup_dir", backup_dir), "epoch", ".weights.h5")
        self._keep, self._restored, self.path = keep, None, None

    @property
    def finished_epochs(self):
        """How many epochs of an interrupted ``fit`` there is a state of; 0 without one."""
        return self._newest()[0]

    def set_params(self, params):
        """Let the other callbacks of this ``fit`` know, and put back what the weights and optimizers were.

        Here, since it comes before ``on_train_begin`` of all of them.
        """
        super().set_params(params)
        self._restored = None
        if params is not None and "epochs" in params:  # those of `evaluate` have none
            params[BACKUP] = self
            self._go_back()

    def state_of(self, callback):
        """What is known of a callback of this ``fit``, or None."""
        return self._restored.get(_names(self.params[RESUMABLES])[callback])

    def on_train_begin(self, logs=None):
        """Refuse a list of callbacks that does not tell them of each other."""
        if self._restored is None:
            raise ValueError(
                "Expected BackupAndRestore among the callbacks of fit, or in a CallbackList with the number of epochs. "
                f"{received('params', self.params)}"
            )

    def on_epoch_end(self, epoch, logs=None):
        """Keep the state; drop those before the last one."""
        others = self.params.get(RESUMABLES, [])
        state = {
            "running": [keras.ops.convert_to_numpy(variable) for variable in running_state(self.model)],
            "stopped": bool(self.model.stop_training),
            "callbacks": {name: other.state() for other, name in _names(others).items()},
        }
        with self._files.write(epoch + 1) as partial:
            self.model.save_weights(partial)
            with h5py.File(partial, "a") as file:
                state["digest"] = _digest(file)
                file[_STATE] = np.frombuffer(pack(state), np.uint8)
        numbers = [number for number, _ in self._files.numbered()]
        self._files.drop([number for number in numbers if number <= epoch + 1][:2])

    def on_train_end(self, logs=None):
        """Let the next ``fit`` begin at its own first epoch; remove the files if nobody will call `on_fit_end`."""
        self.model._initial_epoch = None
        if not getattr(self.model, "in_fit", False):
            self.on_fit_end()

    def on_fit_end(self):
        """Remove the files, after ``on_train_end`` of all callbacks; see `SelfCompressingModel.fit`."""
        if not self._keep:
            self.forget()

    def forget(self):
        """Remove the files; the next ``fit`` starts over."""
        self._files.drop()

    def _newest(self):
        """``(epochs, path, state)`` of the newest file that is whole; ``(0, None, None)`` without one."""
        for epochs, path in self._files.numbered():
            try:
                return epochs, path, _read(path)
            except Exception as error:  # damaged HDF5 and NumPy files raise unrelated types
                logging.warning("The backup %s is damaged and was passed over: %s", path, error)
        return 0, None, None

    def _go_back(self):
        epochs, self.path, state = self._newest()
        self.model._initial_epoch, self._restored = None, {}  # Keras would keep that of an earlier fit
        if not epochs:
            return
        if self.model.optimizer is not None and not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)  # so that its state can be loaded
        self.model.load_weights(self.path)
        for variable, value in zip(running_state(self.model), state["running"], strict=True):
            variable.assign(value)
        # as Keras's BackupAndRestore does; there is no other way
        self.model._initial_epoch = max(epochs, self.params["epochs"]) if state["stopped"] else epochs
        self._restored = state["callbacks"]


def _names(callbacks):
    """``{callback: its class, numbered where there are several}``."""
    names, seen = {}, {}
    for callback in callbacks:
        kind = type(callback).__name__
        seen[kind] = seen.get(kind, 0) + 1
        names[callback] = f"{kind}-{seen[kind]}"
    return names


def _read(path):
    with h5py.File(path, "r") as file:
        state = unpack(bytes(file[_STATE][()]))
        if state["digest"] != _digest(file):
            raise ValueError("its checksum is wrong")
    return state


def _digest(file):
    """A checksum of all arrays but the state."""
    digest = hashlib.blake2b(digest_size=16)

    def add(name, part):
        if isinstance(part, h5py.Dataset) and name != _STATE:
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(part[()]))

    file.visititems(add)
    return digest.hexdigest()
