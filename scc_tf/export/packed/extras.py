"""What a file holds beside layers and weights: constants of the graph, and state of layers that is no variable.

A stream of `scc_tf.coding.mixing`: a JSON text, ``{"constants": [[kind, dtype, shape], …], "layers": {place: [entries,
files]}}``, and then the arrays, the constants first, as `scc_tf.coding.mixing.code_array` codes them.

A constant is a tensor, ``"t"``, or an array of NumPy, ``"n"``; the architecture has its number where it stands. The
place of a layer is the one in the model, nested models entered. Its entries are what it stores by
``save_own_variables``: the place of one of its variables, or ``[dtype, shape]`` of an array. Its files are its assets:
the lines of a text, or, of other and of long files, how many bytes they have, deflated and as they are: an array has
them, deflated.
"""

import json
import math
import zlib
from pathlib import PurePosixPath

import numpy as np

from scc_tf.coding.mixing import MixedCoder, code_array
from scc_tf.export.packed.bounds import parse
from scc_tf.graph import LayerState, has_own_state, state_of
from scc_tf.graph.walk import is_graph
from scc_tf.keras_private import all_layers

__all__ = ["read_extras", "restore_states", "write_extras"]

_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
)
_LONGEST_TEXT = 1 << 18
_LONGEST_FILE = 1 << 16  # as text, which is shorter but takes time to read


def write_extras(model, constants):
    """The extras of a model.

    Args:
        model: functional model.
        constants: list of ``(kind, array)``.

    Returns:
        bytes, none if there is nothing to hold.

    Raises:
        ValueError: if a layer's state cannot be held; the message names the layer.
    """
    arrays, layers = [array for _, array in constants], {}
    for place, layer in enumerate(_layers(model)):
        state = state_of(layer) if has_own_state(layer) else LayerState.of_variables(layer)
        if state.entries != LayerState.of_variables(layer).entries or state.files:
            layers[str(place)] = [_entries(layer, state, arrays), _files(state, arrays)]
    if not layers and not constants:
        return b""
    text = json.dumps({"constants": [[kind, *_form(array)] for kind, array in constants], "layers": layers}).encode()
    coder = MixedCoder()
    coder.text(text, most=len(text))
    for array in arrays:
        code_array(coder, np.array(array, order="C"))
    data = coder.getvalue()
    if len(text) > (most := _longest_text(data)):
        raise ValueError(f"Expected layers whose texts have {most} bytes at most. Received: {len(text)} bytes")
    return data


def _longest_text(data):
    """What a text may have in so many bytes: one that is long takes seconds to read."""
    return min(_LONGEST_TEXT, 4096 + 256 * len(data))


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
        if lines is None or len(content) > _LONGEST_FILE or b"\0" in content:
            arrays.append(np.frombuffer(zlib.compress(content, 9), np.uint8))
            lines = [len(arrays[-1]), len(content)]
        files[name] = lines
    return files


def read_extras(data, most):
    """Read what `write_extras` wrote.

    Args:
        data: the bytes.
        most: elements that all arrays may have together.

    Returns:
        ``(constants, states)``: list of ``(kind, array)``; ``{place of a layer: LayerState}``.

    Raises:
        ValueError: if the bytes are damaged, or ask for more.
    """
    if not data:
        return [], {}
    coder = MixedCoder(data)
    header = parse(coder.text(most=_longest_text(data)))
    left = most

    def array(dtype, shape):
        nonlocal left
        if dtype not in _DTYPES or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError(f"Expected an array of one of {_DTYPES}. Received: dtype={dtype}, shape={shape}")
        left -= max(math.prod(shape), 1)
        if left < 0:
            raise ValueError(f"Expected at most {most} elements in arrays. Received: more")
        values = np.zeros(shape, dtype)
        code_array(coder, values)
        return values

    constants = [(kind, array(dtype, shape)) for kind, dtype, shape in header["constants"]]
    states = {}
    for place, (entries, files) in header["layers"].items():
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
    coder.check_end()
    return constants, states


def _path(name):
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or len(name) > 200 or ".." in path.parts or {"\\", ":", "\0"} & set(name):
        raise ValueError(f"Expected a file below a folder. Received: {name!r}")
    return name


def restore_states(model, states):
    """Give the layers of a model, whose weights are read, the rest of their state.

    Args:
        model: the model.
        states: as `read_extras` returns them.

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
