"""What a layer remembers, by Keras's own protocol: variables, and what is no variable.

A `Normalization` computes with constants, a lookup with a table, a layer of a user with what it likes. Keras saves such
state by ``save_own_variables`` and ``save_assets``, reads it by ``load_own_variables`` and ``load_assets``, and makes
constants anew in ``finalize_state``, which most layers call when they are read.
"""

import contextlib
import dataclasses
import tempfile
from pathlib import Path

import keras
import numpy as np

from scc_tf.keras_private import all_layers, own_variables, seed_states

__all__ = ["LayerState", "copy_running_state", "copy_state", "has_own_state", "running_state", "state_of"]

_PROTOCOL = ("save_own_variables", "load_own_variables")
_OF_VARIABLES = [  # whose methods do nothing but save and load variables
    keras.layers.Layer,
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Embedding,
    keras.layers.Conv2D,
]


@dataclasses.dataclass
class LayerState:
    """The state of one layer, without its inner layers.

    Attributes:
        entries: what it stores by name: the place of one of its `own_variables`, or an array.
        files: its assets, ``{path in the folder of assets: bytes}``.
    """

    entries: dict
    files: dict

    @classmethod
    def of_variables(cls, layer):
        """The state of a layer that stores its variables, in order, and nothing else."""
        return cls({str(place): place for place in range(len(own_variables(layer)))}, {})

    def restore(self, layer):
        """Give a layer this state; its variables must have their values already.

        Raises:
            ValueError: if the layer cannot read it; the message names the layer.
        """
        variables = own_variables(layer)
        values = {n: _array(variables[e]) if isinstance(e, int) else e for n, e in self.entries.items()}
        with _errors_that_name(layer):
            if _saves_its_own_way(layer):
                layer.load_own_variables(values)
            if self.files:
                with tempfile.TemporaryDirectory() as folder:
                    for name, content in self.files.items():
                        path = Path(folder) / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(content)
                    layer.load_assets(folder)
            if not _saves_its_own_way(layer) and variables and hasattr(layer, "finalize_state"):
                layer.finalize_state()  # of the variables; what it gathers from data is gone


@contextlib.contextmanager
def _errors_that_name(layer):
    try:
        yield
    except Exception as error:  # whatever the methods of a layer raise
        raise ValueError(
            f"Expected layer {layer.name!r} ({type(layer).__name__}) to save and load its own state. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


def _saves_its_own_way(layer):
    if getattr(layer, "quantization_mode", None):
        return True
    return any(all(getattr(type(layer), n) is not getattr(c, n) for c in _OF_VARIABLES) for n in _PROTOCOL)


def has_own_state(layer):
    """Whether a layer may remember something that is no variable, or make something of its variables."""
    return _saves_its_own_way(layer) or hasattr(layer, "save_assets") or hasattr(layer, "finalize_state")


def _array(value):
    return np.array(keras.ops.convert_to_numpy(value))


def state_of(layer):
    """The `LayerState` of a layer; a ValueError that names the layer if it cannot save it."""
    places = {id(variable): place for place, variable in enumerate(own_variables(layer))}
    stored, files = {}, {}
    with _errors_that_name(layer):
        layer.save_own_variables(stored)
        if hasattr(layer, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                layer.save_assets(folder)
                found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
                files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return LayerState({n: places[id(v)] if id(v) in places else _array(v) for n, v in stored.items()}, files)


def copy_state(layer, copy):
    """Give a built layer all that another one of the same configuration remembers, in its inner layers too.

    Variables are copied bit for bit, with whether they are trainable; the states of random generators as well.

    Raises:
        ValueError: if the copy has other inner layers or variables; the message names the layer.
    """
    for inner, twin in _in_pairs(layer, all_layers(layer), all_layers(copy)):
        pairs = _in_pairs(inner, own_variables(inner), _as_named(own_variables(inner), own_variables(twin)))
        twin.trainable = inner.trainable
        for old, new in pairs:
            new.assign(old)
        if has_own_state(inner):
            state_of(inner).restore(twin)
        for old, new in pairs:  # what a layer stores may be less: kernels and updates in one, for example
            new.assign(old)
            new.trainable = old.trainable
    copy_running_state(layer, copy)


def running_state(layer):
    """The variables that every call may change and that Keras does not save, inner layers included.

    They are the states of random generators, and what stateful recurrent layers know of the batch before.
    """
    found = []
    for inner in all_layers(layer):
        found += seed_states(inner)
        found += [state for state in keras.tree.flatten(getattr(inner, "states", None)) if hasattr(state, "assign")]
    return found


def copy_running_state(layer, copy):
    """Give a layer the `running_state` of another one."""
    for old, new in _in_pairs(layer, running_state(layer), running_state(copy)):
        new.assign(old)


def _in_pairs(layer, old, new):
    if len(old) != len(new):
        raise ValueError(
            f"Expected a copy of layer {layer.name!r} ({type(layer).__name__}) by its get_config to have as many "
            f"variables and inner layers. Received: {len(new)} instead of {len(old)}"
        )
    return list(zip(old, new, strict=True))


def _as_named(old, new):
    """The variables ``new`` in the order of ``old``, by name where names tell them apart."""
    names, found = [variable.name for variable in old], {variable.name: variable for variable in new}
    return [found[name] for name in names] if len(found) == len(new) and found.keys() == set(names) else new
