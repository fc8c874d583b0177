"""What an optimizer knows about each variable, and how it is taken along to other variables."""

import keras
import numpy as np

from scc_tf.keras_private import forget_built, track_variable, trained_by

__all__ = ["carry_optimizer", "move_optimizer", "optimizer_parts", "optimizer_slots"]

_AXIS_LESS = {"_r": -1, "_c": -2}  # Adafactor's means over one axis of a variable: they have all other axes


def optimizer_parts(optimizer):
    """An optimizer and all that work inside it: those of a ``LossScaleOptimizer`` and of a ``MultiOptimizer``."""
    inner = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())]
    return [optimizer, *(part for one in inner if one is not None for part in optimizer_parts(one))]


def optimizer_slots(optimizer, variable):
    """The slot variables that an optimizer keeps for one variable: momenta, second moments, ….

    Keras has no public way to ask for them; they are the entries, at the variable's place, of the optimizer's lists
    that run parallel to its variables. Scalars are not slots. They have the shape of the variable; the list is empty if
    the optimizer, or the one in a ``LossScaleOptimizer``, does not know it.
    """
    parts = [_Holding(part) for part in optimizer_parts(optimizer)]
    slots = {id(slot): slot for part in parts for slot in part.slots(variable).values()}
    return [slot for slot in slots.values() if slot.shape == variable.shape]


def carry_optimizer(optimizer, variables, cuts):
    """A fresh optimizer for ``variables`` that goes on where another one is.

    Iterations, learning rate and other scalars are copied, slots follow their variables. Adafactor's means over an axis
    keep the channels that stay. Slots of another shape start anew.

    ``cuts`` have ``old`` and ``new`` variables and ``places``: an int array in the shape of ``new`` that says where in
    ``old``, flattened, every entry comes from, -1 if from nowhere; None if all stays where it is. What comes from
    nowhere starts anew, and so does a variable whose ``old`` is None.
    """
    fresh = optimizer.__class__.from_config(optimizer.get_config())
    fresh.build(variables)
    for old, new in zip(optimizer_parts(optimizer), optimizer_parts(fresh), strict=True):
        _Holding(old).carry_to(new, cuts)
    return fresh


def move_optimizer(optimizer, variables, cuts):
    """Let this very optimizer go on with other variables; see `carry_optimizer`.

    Whoever holds the optimizer, or has set its learning rate or its schedule, need not know.
    """
    before = [_Holding(part) for part in optimizer_parts(optimizer)]
    for holding in before:
        forget_built(holding.part)
    optimizer.build(variables)
    for holding in before:
        holding.carry_to(holding.part, cuts)


def _is_variable(value):
    return isinstance(value, keras.Variable)


class _Holding:
    """What one optimizer holds now: its attributes, of which some are variables, or lists of one per variable."""

    def __init__(self, part):
        self.part = part
        self.attributes = dict(vars(part))
        trained, self.variables = trained_by(part)
        self.place = {id(v): i for i, v in enumerate(trained)}

    def slots(self, variable):
        """``{attribute: slot}`` of a trainable variable."""
        place, own = self.place.get(id(variable)), {id(v) for v in self.variables}
        if place is None:
            return {}
        lists = {
            name: values
            for name, values in self.attributes.items()
            if isinstance(values, list) and len(values) == len(self.place) and name != "_variables"
        }
        return {name: values[place] for name, values in lists.items() if id(values[place]) in own}

    def carry_to(self, part, cuts):
        """Give a built optimizer of the same class what this one holds."""
        for name, old in self.attributes.items():
            new = getattr(part, name, None)
            if not _is_variable(old) or not _is_variable(new):
                continue
            if new is not old:
                new.assign(old)
            else:
                track_variable(part, old)
        fresh = _Holding(part)
        for cut in cuts:
            old_slots, new_slots = self.slots(cut.old), fresh.slots(cut.new)
            for name in old_slots.keys() & new_slots.keys():
                axis = _AXIS_LESS.get(name) if isinstance(part, keras.optimizers.Adafactor) else None
                _carry_slot(cut, old_slots[name], new_slots[name], axis)


def _carry_slot(cut, old, new, axis):
    """Let a slot follow its variable; ``axis`` is the one of the variable that the slot does not have, if any."""
    places = cut.places
    if places is not None and axis is not None and places.ndim >= 2:
        places = _without_axis(places, tuple(cut.old.shape), axis)
    if places is None and old.shape == new.shape:
        new.assign(old)
    elif places is not None and new.shape == places.shape and (axis is not None or old.shape == cut.old.shape):
        values, start = (np.asarray(keras.ops.convert_to_numpy(v)) for v in (old, new))
        new.assign(np.where(places < 0, start, values.ravel()[places]))


def _without_axis(places, shape, axis):
    """Places in an array of ``shape`` as places in its mean over an axis, from which the same axis is taken."""
    index = list(np.unravel_index(np.maximum(places, 0), shape))
    rest = list(shape)
    del index[axis], rest[axis]
    return np.where(places < 0, -1, np.ravel_multi_index(index, rest)).max(axis=axis)
