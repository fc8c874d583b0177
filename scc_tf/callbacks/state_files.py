"""States of callbacks as bytes, and the files of one callback or fit, numbered by step or epoch."""

import io
import json
import re

import numpy as np

from scc_tf.atomic import atomic_path

__all__ = ["StateFiles", "pack", "unpack"]

_ARRAY = "__array__"  # what stands in the JSON for one


def pack(state):
    """Bytes of a state: dictionaries, lists and tuples of JSON values and arrays, however nested.

    An archive of NumPy (``.npz``), whose checksums find damage. Arrays keep their type, bfloat16 included.
    """
    arrays = []

    def plain(value):
        if isinstance(value, np.ndarray):
            arrays.append(np.frombuffer(value.tobytes(), np.uint8))
            return {_ARRAY: [len(arrays) - 1, value.dtype.name, value.shape]}
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        return [plain(part) for part in value] if isinstance(value, list | tuple) else value

    text, buffer = json.dumps(plain(state)), io.BytesIO()
    np.savez(buffer, *arrays, state=text)
    return buffer.getvalue()


def unpack(data):
    """The state that `pack` made bytes of; tuples come back as lists.

    Raises:
        Exception: of many unrelated types, if the bytes are damaged.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        text, arrays = str(stored["state"]), [stored[f"arr_{i}"] for i in range(len(stored.files) - 1)]

    def array(number, dtype, shape):
        return np.frombuffer(arrays[number].tobytes(), np.dtype(dtype)).reshape(shape).copy()

    return json.loads(text, object_hook=lambda part: array(*part[_ARRAY]) if set(part) == {_ARRAY} else part)


class StateFiles:
    """Files ``<name>-<number><suffix>`` in a folder that may hold others, too.

    Args:
        folder: `pathlib.Path`; made when it is needed.
        name: what they begin with.
        suffix: what they end with.
    """

    def __init__(self, folder, name, suffix):
        self.folder, self._name, self._suffix = folder, name, suffix

    def numbered(self):
        """``[(number, path), …]``, the newest first."""
        pattern = re.compile(rf"{re.escape(self._name)}-(\d+){re.escape(self._suffix)}")
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        found = ((pattern.fullmatch(path.name), path) for path in paths)
        return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)

    def write(self, number):
        """Context that yields the path to write to, see `scc_tf.atomic.atomic_path`."""
        return atomic_path(self.folder / f"{self._name}-{number}{self._suffix}")

    def drop(self, keep=()):
        """Remove all files but those of the numbers to ``keep``, and what a kill left half written."""
        for number, path in self.numbered():
            if number not in keep:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(f".*-partial-{self._name}-*{self._suffix}"):
            path.unlink(missing_ok=True)
