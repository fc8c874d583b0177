"""What a file holds beside layers and weights: constants of the graph, and state of layers that is no variable.

A stream of `scc_tf.coding.mixing`: a JSON text, ``{"constants": [[kind, dtype, shape], …], "layers": {place: [entries,
files]}}``, and then the arrays, the constants first, as `scc_tf.coding.mixing.code_array` codes them.

A constant is a tensor, ``"t"``, or an array of NumPy, ``"n"``; the architecture has its number where it stands. The
place of a layer is the one in the model, nested models entered. Its entries are what it stores by
``save_own_variables``: the place of one of its variables, or ``[dtype, shape]`` of an array. Its files are its assets:
the lines of a text, or, of other files, the number of bytes, which are an array then.
"""

import json
import math
from pathlib import PurePosixPath

import numpy as np

from scc_tf.coding.mixing import MixedCoder, code_array
from scc_tf.export.packed.bounds import LARGEST_TEXT, parse
from scc_tf.graph import LayerState, has_own_state, state_of
from scc_tf.graph.walk import is_graph

__all__ = ["read_extras", "restore_states", "write_extras"]

_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
)
_LONGEST_LINE = 1 << 15


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
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"Expected layers whose texts take {LARGEST_TEXT} bytes at most. Received: {len(text)} bytes")
    coder = MixedCoder()
    coder.text(text, most=LARGEST_TEXT)
    for array in arrays:
        code_array(coder, np.array(array, order="C"))
    return coder.getvalue()


def _layers(model):
    return [layer for layer in model._flatten_layers() if not is_graph(layer)]


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
        if lines is None or max(map(len, lines)) > _LONGEST_LINE or "\0" in content.decode():
            arrays.append(np.frombuffer(content, np.uint8))
            lines = len(content)
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
    header = parse(coder.text(most=LARGEST_TEXT))
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
        contents = {
            _path(n): "\n".join(f).encode() if isinstance(f, list) else array("uint8", [f]) for n, f in files.items()
        }
        states[int(place)] = LayerState(values, {name: bytes(content) for name, content in contents.items()})
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
