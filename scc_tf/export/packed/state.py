"""What a file holds beside layers and weights: constants of the graph, and state of layers that is no variable.

The text of the architecture lists them: ``"constants": [[kind, dtype, shape], …]`` and ``"state": {place of a layer:
[entries, files]}``; their arrays follow the text, the constants first. A constant is a tensor, ``"t"``, or an array of
NumPy, ``"n"``; the architecture has its number where it stands. The place of a layer is the one in the model, nested
models entered. Its entries are what it stores by ``save_own_variables``: the place of one of its variables, or
``[dtype, shape]`` of an array. Its files are its assets: the lines of a text, or, of other and of long files, how many
bytes they have, deflated and as they are: an array has them, deflated.
"""

import math
import zlib
from pathlib import PurePosixPath

import numpy as np

from scc_tf.coding import code_array
from scc_tf.graph import LayerState, has_own_state, state_of
from scc_tf.graph.walk import is_graph
from scc_tf.keras_private import all_layers

__all__ = ["read_state", "restore_state", "state_arrays"]

_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
)
_LONGEST_FILE = 1 << 16  # as text, which is shorter but takes time to read


def state_arrays(model, constants):
    """What the text lists, and the arrays that follow it.

    Args:
        model: functional model.
        constants: list of ``(kind, array)``.

    Returns:
        ``(listed, arrays)``: dict, empty if there is nothing to hold; list of arrays.

    Raises:
        ValueError: if a layer's state cannot be held; the message names the layer.
    """
    arrays, layers = [array for _, array in constants], {}
    for place, layer in enumerate(_layers(model)):
        plain = LayerState.of_variables(layer)
        state = state_of(layer) if has_own_state(layer) else plain
        if state.entries != plain.entries or state.files:
            layers[str(place)] = [_entries(layer, state, arrays), _files(state, arrays)]
    listed = {"constants": [[kind, *_form(array)] for kind, array in constants], "state": layers}
    return {key: value for key, value in listed.items() if value}, arrays


def _layers(model):
    return [layer for layer in all_layers(model) if not is_graph(layer)]


def _form(array):
    return [str(array.dtype), list(array.shape)]


def _entries(layer, state, arrays):
    entries = {}
    for name, entry in state.entries.items():
        if not isinstance(entry, int):
            if str(entry.dtype) not in _DTYPES:
                raise ValueError(
                    f"Expected layers that store numbers. Received: layer {layer.name!r} with {name!r} of {entry.dtype}"
                )
            arrays.append(entry)
            entry = _form(entry)
        entries[name] = entry
    return entries


def _files(state, arrays):
    files = {}
    for name, content in state.files.items():
        try:
            lines = content.decode().split("\n")
        except UnicodeDecodeError:
            lines = None
        if lines is None or len(content) > _LONGEST_FILE:
            arrays.append(np.frombuffer(zlib.compress(content, 9), np.uint8))
            lines = [len(arrays[-1]), len(content)]
        files[name] = lines
    return files


def read_state(stream, listed, most):
    """Read the arrays that a text lists.

    Args:
        stream: `scc_tf.coding.Stream`.
        listed: dict, as `state_arrays` gives it.
        most: elements that all arrays may have together.

    Returns:
        ``(constants, states)``: list of ``(kind, array)``; ``{place of a layer: LayerState}``.

    Raises:
        ValueError: if the stream is damaged, or asks for more.
    """
    left = most

    def array(dtype, shape):
        nonlocal left
        if dtype not in _DTYPES or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError(f"Expected an array of one of {_DTYPES}. Received: dtype={dtype}, shape={shape}")
        left -= max(math.prod(shape), 1)
        if left < 0:
            raise ValueError(f"Expected at most {most} elements in arrays. Received: more")
        values = np.zeros(shape, dtype)
        code_array(stream, values)
        return values

    constants = [(kind, array(dtype, shape)) for kind, dtype, shape in listed.get("constants", ())]
    states = {}
    for place, (entries, files) in listed.get("state", {}).items():
        values = {name: entry if isinstance(entry, int) else array(*entry) for name, entry in entries.items()}
        contents = {}
        for name, lines in files.items():
            if isinstance(lines[0], str):
                contents[_path(name)] = "\n".join(lines).encode()
                continue
            packed, length = lines
            left -= length
            unpacker = zlib.decompressobj()
            contents[_path(name)] = unpacker.decompress(array("uint8", [packed]).tobytes(), max(length, 1))
        states[int(place)] = LayerState(values, contents)
    return constants, states


def _path(name):
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or len(name) > 200 or ".." in path.parts or {"\\", ":", "\0"} & set(name):
        raise ValueError(f"Expected a file below a folder. Received: {name!r}")
    return name


def restore_state(model, states):
    """Give the layers of a model, whose weights are read, the rest of their state.

    Args:
        model: the model.
        states: as `read_state` returns them.

    Raises:
        ValueError: if a layer cannot have such a state.
    """
    layers = _layers(model)
    if unknown := [place for place in states if not 0 <= place < len(layers)]:
        raise ValueError(f"Expected states of layers from 0 to {len(layers) - 1}. Received: {unknown[:5]}")
    for place, layer in enumerate(layers):
        if place in states:
            states[place].restore(layer)
        elif has_own_state(layer):
            LayerState.of_variables(layer).restore(layer)
