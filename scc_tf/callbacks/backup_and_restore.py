"""All that an interrupted fit needs to go on as if nothing had happened, in one file."""

import hashlib
import json
import re
from pathlib import Path

import h5py
import keras
import numpy as np
from absl import logging

from scc_tf.arguments import check_folder, received
from scc_tf.atomic import atomic_path
from scc_tf.callbacks.fit_callback import BACKUP, FitCallback
from scc_tf.graph import running_state
from scc_tf.training.callback_order import LAST

__all__ = ["BackupAndRestore"]

_GROUP = "scc_tf"  # in the weights file; Keras does not look at what it does not know
_ARRAY = "__array__"  # what stands in the JSON for one
_NAME = re.compile(r"epoch-(\d+)\.weights\.h5")


class BackupAndRestore(FitCallback):
    """Keeps the state of a ``fit`` after each epoch, and goes on from it after an interruption, a kill included.

    One file has it whole: weights, optimizers, gamma, the channels that were cut, the random state of the layers, and
    what the other callbacks of `scc_tf.callbacks` know. It is written beside the last one and takes its place in one
    step. The one before is kept, too, and is taken where the newest is damaged. The files are removed when ``fit``
    ends.

    What goes on is the same run, bit for bit on the same processor, if the data are: in an order that depends on the
    epoch alone, as `finished_epochs` lets a script choose it. With ``shuffle=True`` Keras draws another order.

    With a plain Keras model, list it last. Keras's callbacks (``EarlyStopping``, ``ReduceLROnPlateau``) have no state
    to keep, and begin anew. ``keras.callbacks.BackupAndRestore`` keeps the weights alone.

    Args:
        backup_dir: folder for these files alone.
        keep: whether the files of a ``fit`` that has ended stay, until `forget`. The next ``fit`` then trains nothing.

    Raises:
        ValueError: if ``backup_dir`` cannot be a folder; from ``fit``, if its weights are of another model.

    Example:
        >>> backup = scc_tf.callbacks.BackupAndRestore("backup")                # doctest: +SKIP
        >>> compressed.fit(batches, epochs=9, callbacks=[monitor, restoration, backup])     # doctest: +SKIP
    """

    rank = LAST

    def __init__(self, backup_dir: str | Path, *, keep: bool = False):
        super().__init__()
        self._folder, self._keep, self._restored = check_folder("backup_dir", backup_dir), keep, None

    @property
    def finished_epochs(self):
        """How many epochs of an interrupted ``fit`` there is a state of; 0 without one."""
        return self._newest()[0]

    def forget(self):
        """Remove the files; the next ``fit`` starts over."""
        self._drop()

    def set_params(self, params):
        """Put back what the weights and optimizers were; here, since it comes before all ``on_train_begin``."""
        super().set_params(params)
        self._restored = None
        if params is not None and "epochs" in params:  # those of `evaluate` have none
            params[BACKUP] = self
            self._go_back()

    def state_of(self, callback):
        """What is known of a callback of this ``fit``, or None."""
        return self._restored.get(self._names()[callback])

    def on_train_begin(self, logs=None):
        """Refuse a list of callbacks that does not tell them of each other."""
        if self._restored is None:
            raise ValueError(
                "Expected BackupAndRestore among the callbacks of fit, or in a CallbackList with the number of epochs. "
                f"{received('params', self.params)}"
            )

    def on_epoch_end(self, epoch, logs=None):
        """Keep the state; drop those before the last one."""
        state = {
            "running": [keras.ops.convert_to_numpy(variable) for variable in running_state(self.model)],
            "stopped": bool(self.model.stop_training),
            "callbacks": {name: other.state() for other, name in self._names().items()},
        }
        with atomic_path(self._folder / f"epoch-{epoch + 1}.weights.h5") as partial:
            self.model.save_weights(partial)
            _write(partial, state)
        self._drop([epochs for epochs, _ in self._files() if epochs <= epoch + 1][:2])

    def on_train_end(self, logs=None):
        """Let the next ``fit`` begin at its own first epoch."""
        self.model._initial_epoch = None
        super().on_train_end(logs)

    def on_fit_end(self):
        """Remove the files."""
        if not self._keep:
            self._drop()

    def _names(self):
        """``{callback: its class, numbered where there are several}``."""
        names, seen = {}, {}
        for callback in self.companions():
            kind = type(callback).__name__
            seen[kind] = seen.get(kind, 0) + 1
            names[callback] = f"{kind}-{seen[kind]}"
        return names

    def _files(self):
        """``[(epochs, path), …]``, the newest first."""
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(((int(m[1]), path) for path in paths if (m := _NAME.fullmatch(path.name))), reverse=True)

    def _drop(self, keep=()):
        """Remove all files but those of the epochs to ``keep``, and what a kill left half written."""
        unwanted = [path for epochs, path in self._files() if epochs not in keep]
        for path in [*unwanted, *self._folder.glob(".*-partial-epoch-*.weights.h5")]:
            path.unlink(missing_ok=True)

    def _newest(self):
        """``(epochs, path, state)`` of the newest file that is whole; ``(0, None, None)`` without one."""
        for epochs, path in self._files():
            try:
                return epochs, path, _read(path)
            except Exception as error:  # damaged HDF5 files raise unrelated types
                logging.warning("The backup %s is damaged and was passed over: %s", path, error)
        return 0, None, None

    def _go_back(self):
        epochs, path, state = self._newest()
        self.model._initial_epoch, self._restored = None, {}  # Keras would keep that of an earlier fit
        if not epochs:
            return
        if self.model.optimizer is not None and not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)  # so that its state can be loaded
        self.model.load_weights(path)
        for variable, value in zip(running_state(self.model), state["running"], strict=True):
            variable.assign(value)
        # as Keras's BackupAndRestore does; there is no other way
        self.model._initial_epoch = max(epochs, self.params["epochs"]) if state["stopped"] else epochs
        self._restored = state["callbacks"]


def _write(path, state):
    """Add a state to a file: dictionaries, lists and tuples of JSON values and arrays, however nested."""
    with h5py.File(path, "a") as file:
        group = file.create_group(_GROUP)

        def plain(value):
            if isinstance(value, np.ndarray):  # its type by name: HDF5 has no bfloat16
                name = f"array_{len(group)}"
                group[name] = np.frombuffer(value.tobytes(), np.uint8)
                return {_ARRAY: [name, value.dtype.name, value.shape]}
            if isinstance(value, dict):
                return {name: plain(part) for name, part in value.items()}
            return [plain(part) for part in value] if isinstance(value, list | tuple) else value

        text = json.dumps(plain(state))
        group["state"] = np.frombuffer(text.encode(), np.uint8)
        group.attrs["digest"] = _digest(file)


def _read(path):
    with h5py.File(path, "r") as file:
        group = file[_GROUP]
        if group.attrs["digest"] != _digest(file):
            raise ValueError("its checksum is wrong")

        def array(part):
            if set(part) != {_ARRAY}:
                return part
            name, dtype, shape = part[_ARRAY]
            return np.frombuffer(group[name][()].tobytes(), np.dtype(dtype)).reshape(shape).copy()

        return json.loads(group["state"][()].tobytes(), object_hook=array)


def _digest(file):
    """A checksum of all arrays."""
    digest = hashlib.blake2b(digest_size=16)

    def add(name, part):
        if isinstance(part, h5py.Dataset):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(part[()]))

    file.visititems(add)
    return digest.hexdigest()
