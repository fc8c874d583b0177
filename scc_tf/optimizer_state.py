"""What an optimizer knows about each variable, and how it is taken along to other variables."""

import keras
import numpy as np

__all__ = ["carry_optimizer", "optimizer_slots"]


def optimizer_slots(optimizer, variable):
    """The slot variables that an optimizer keeps for one variable: momenta, second moments, ….

    Keras has no public way to ask for them; they are the entries, at the variable's place, of the optimizer's lists
    that run parallel to its variables. Scalars are not slots.

    Args:
        optimizer: built Keras optimizer, in a ``LossScaleOptimizer`` or not.
        variable: a trainable variable that it updates.

    Returns:
        List of variables in the shape of ``variable``; empty if the optimizer does not know it.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    known = [id(v) for v in optimizer._trainable_variables]
    if id(variable) not in known:
        return []
    place = known.index(id(variable))
    own = {id(v) for v in optimizer.variables}
    lists = [v for v in vars(optimizer).values() if isinstance(v, list) and len(v) == len(known)]
    slots = {id(v[place]): v[place] for v in lists if id(v[place]) in own}
    return [slot for slot in slots.values() if slot.shape == variable.shape]


def carry_optimizer(optimizer, variables, cuts):
    """A fresh optimizer for ``variables`` that goes on where another one is.

    Args:
        optimizer: built Keras optimizer, left untouched.
        variables: the trainable variables of the new one.
        cuts: objects with ``old`` and ``new`` variables, that called with an array of the old variable's shape return
            one of the new variable's. A variable without one starts with empty slots.

    Returns:
        Built optimizer of the same class and settings: iterations, learning rate and other scalars are copied, slots
        are cut along. Slots that do not have their variable's shape (Adafactor's) start anew.
    """
    fresh = optimizer.__class__.from_config(optimizer.get_config())
    fresh.build(variables)
    scalars = [[v for v in o.variables if len(v.shape) == 0] for o in (optimizer, fresh)]
    for old, new in zip(*scalars, strict=True):
        new.assign(old)
    for cut in cuts:
        if cut.old is not None:
            for old, new in zip(optimizer_slots(optimizer, cut.old), optimizer_slots(fresh, cut.new), strict=True):
                new.assign(cut(np.asarray(keras.ops.convert_to_numpy(old))))
    return fresh
