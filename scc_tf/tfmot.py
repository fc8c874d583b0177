"""TF-MOT's pruning schedules and masks for Keras 3: the only module that imports TF-MOT.

Importing TF-MOT sets ``TF_USE_LEGACY_KERAS=1``, after which ``tf.keras``, where nobody has touched it yet, turns into
Keras 2, and with it whatever uses it. Here ``tf.keras`` is resolved first and the variable put back, so a program sees
no difference, whatever it imports when. TF-MOT is imported when a name of it is first used, which takes seconds.

Its layer wrappers refuse Keras 3. Its schedules are plain objects, and its mask engine works on tensors.
"""

import functools
import inspect
import os

import numpy as np
import tensorflow as tf

from scc_tf.arguments import check_count, check_number
from scc_tf.extras import load
from scc_tf.pruning import block_mask

__all__ = ["ConstantSparsity", "PolynomialDecay", "mask_of", "sparsity_at"]  # noqa: F822 (`__getattr__` has the first two)

_ENGINE = "tensorflow_model_optimization.python.core.sparsity.keras"
_VARIABLE = "TF_USE_LEGACY_KERAS"
_SCHEDULES = ("ConstantSparsity", "PolynomialDecay")
_SPARSITIES = ("target_sparsity", "initial_sparsity", "final_sparsity")
_STEPS = {"begin_step": 0, "end_step": -1, "frequency": 1}  # argument: the least that it may be


@functools.cache
def _library():
    """The modules ``pruning_schedule`` and ``pruning_impl`` of TF-MOT, imported without a trace."""
    before = os.environ.get(_VARIABLE)
    _ = tf.keras.__version__  # resolves the lazy module to what it is now
    try:
        return tuple(load(f"{_ENGINE}.{name}", "tfmot") for name in ("pruning_schedule", "pruning_impl"))
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


def __getattr__(name):
    if name in _SCHEDULES:
        return _checked(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _checked(name):
    """A schedule of TF-MOT that refuses wrong arguments by their names."""
    schedule = getattr(_library()[0], name)

    @functools.wraps(schedule.__init__)
    def init(self, *args, **kwargs):
        arguments = inspect.signature(schedule).bind(*args, **kwargs)
        arguments.apply_defaults()
        for argument, value in arguments.arguments.items():
            if argument in _SPARSITIES:
                check_number(argument, value, 0, 1)
            elif argument in _STEPS:
                check_count(argument, value, _STEPS[argument])
        schedule.__init__(self, *args, **kwargs)

    return type(name, (schedule,), {"__init__": init, "__doc__": schedule.__doc__, "__module__": __name__})


def sparsity_at(schedule, step):
    """What a TF-MOT schedule says about a training step.

    Args:
        schedule: ``ConstantSparsity``, ``PolynomialDecay`` or another ``PruningSchedule`` of TF-MOT.
        step: training steps taken so far.

    Returns:
        ``(whether to prune at this step, sparsity)``: bool, and the fraction of weights that are to be zero, in [0, 1].

    Example:
        >>> from scc_tf.tfmot import ConstantSparsity
        >>> sparsity_at(ConstantSparsity(0.5, begin_step=10, frequency=5), 15)
        (True, 0.5)
    """
    prune, sparsity = schedule(tf.constant(step, tf.int64))
    return bool(prune), float(sparsity)


def mask_of(weights, sparsity, *, block=(1, 1), pooling="AVG", zeros_of=None):
    """The mask that TF-MOT computes for one tensor: the smallest magnitudes go, ties with the threshold stay.

    Args:
        weights: float array of any shape; of rank 2 for blocks.
        sparsity: fraction of the weights to prune, in [0, 1]; at least one weight stays.
        block: ``(height, width)`` of blocks that stand and fall together.
        pooling: ``"AVG"`` or ``"MAX"``: the magnitude of a block.
        zeros_of: ``(m, n)`` for m zeros among n consecutive inputs instead, whatever ``sparsity`` is.

    Returns:
        Bool array in the shape of ``weights``; True keeps.

    Raises:
        ValueError: if ``sparsity`` is out of range, or a block is asked for on a tensor that is no matrix.

    Source: TensorFlow Model Optimization Toolkit, ``sparsity/keras/pruning_impl.py``.

    Example:
        >>> mask_of(np.float32([0.1, -3, 0.2, 1]), 0.5).tolist()
        [False, True, False, True]
    """
    check_number("sparsity", sparsity, 0, 1)
    weights = tf.convert_to_tensor(weights, tf.float32)
    if tuple(block) != (1, 1) and weights.shape.rank != 2:
        raise ValueError(f"Expected a matrix for blocks of {tuple(block)}. Received: shape {tuple(weights.shape)}")
    if tuple(block) != (1, 1) and any(size <= side for size, side in zip(weights.shape, block, strict=True)):
        # TF-MOT cannot expand a single row or column of blocks
        return block_mask(weights.numpy(), sparsity, block, {"AVG": "average", "MAX": "max"}[pooling])
    _, engine = _library()
    pruning = engine.Pruning(
        training_step_fn=lambda: 0,
        pruning_vars=[],
        pruning_schedule=lambda step: (True, tf.constant(sparsity, tf.float32)),
        block_size=block,
        block_pooling_type=pooling,
        sparsity_m_by_n=zeros_of,
    )
    _, mask = pruning._maybe_update_block_mask(weights)
    return np.asarray(mask, bool)
