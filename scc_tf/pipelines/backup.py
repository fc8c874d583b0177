"""The state of a training after its last epoch, for a session to come."""

import shutil

import h5py
import keras

from scc_tf.atomic import atomic_path

__all__ = ["Backup"]


class Backup(keras.callbacks.Callback):
    """Keeps the model and its optimizer after each of the last two epochs; list it after what else an epoch leaves.

    One file holds a state, whole, and its name says after which epoch, so that weights and epochs agree whatever is
    lost. (`keras.callbacks.BackupAndRestore` has a file for each of the two; and that it takes the older pair, since
    the newer one is damaged, it finds out in ``fit``, when the batches of the newer epoch have been chosen.)

    Args:
        folder: `pathlib.Path` that is for these files alone.
    """

    def __init__(self, folder):
        super().__init__()
        self._folder = folder

    @property
    def newest(self):
        """``(epochs, path)`` of the newest state that is whole; ``(0, None)`` without one."""
        whole = [(epochs, path) for epochs, path in self._states() if _is_whole(path)]
        return whole[-1] if whole else (0, None)

    def on_epoch_end(self, epoch, logs=None):
        """Keep the state; drop those before the last one."""
        earlier = [path for epochs, path in self._states() if epochs <= epoch]
        with atomic_path(self._folder / f"epoch-{epoch + 1}.weights.h5") as partial:
            self.model.save_weights(partial)
        for path in earlier[:-1]:
            path.unlink()

    def forget(self):
        """Drop all states."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _states(self):
        """``(epochs, path)`` in the order of the epochs."""
        paths = self._folder.glob("epoch-*.weights.h5")
        return sorted((int(path.name.removeprefix("epoch-").partition(".")[0]), path) for path in paths)


def _is_whole(path):
    """Whether a file can be opened; HDF5 finds out that its end is missing."""
    try:
        h5py.File(path, "r").close()
    except OSError:
        return False
    return True
