"""Whether the model that a file holds answers as the one that was written."""

import keras
import numpy as np
from absl import logging

from scc_tf.graph import probe_inputs, running_state
from scc_tf.inference import outputs

__all__ = ["TOLERANCE", "answer_error"]

TOLERANCE = 1e-4  # of the largest answer, or of 1: the same arithmetic on the same numbers
_EXAMPLES = 4


def answer_error(model, restored):
    """The largest difference between the answers of two models, relative to the largest answer or to 1.

    Both get the same few inputs (`scc_tf.graph.probe_inputs`), in inference mode, stateful recurrent layers as at their
    start. Variables that a forward pass changes are put back.

    Args:
        model: the model that was written.
        restored: the one that was read.

    Returns:
        float, infinite if the answers differ in form or in where they are finite; None if ``model`` answers none of
        these inputs, or not twice the same.
    """
    kept = _values(model.non_trainable_variables)
    running = _values(running_state(model))

    def ask(asked):
        _assign([(variable, np.zeros_like(value)) for variable, value in _values(running_state(asked))])
        _assign(kept)
        return keras.tree.flatten(outputs(asked, inputs))

    try:
        inputs = probe_inputs(model, _EXAMPLES)
        answers = ask(model)
    except Exception as error:  # a layer of a user may want inputs that nobody can guess
        logging.warning("What %s answers could not be compared with its file: %s", model.name, error)
        return None
    try:
        difference = _difference(answers, ask(restored))
        return None if difference > TOLERANCE < _difference(answers, ask(model)) else difference
    finally:
        _assign(kept + running)


def _values(variables):
    return [(variable, np.array(keras.ops.convert_to_numpy(variable))) for variable in variables]


def _assign(values):
    for variable, value in values:
        variable.assign(value)


def _difference(answers, others):
    return max(map(_relative, answers, others), default=0.0) if len(answers) == len(others) else np.inf


def _relative(answer, other):
    if answer.shape != other.shape or answer.dtype != other.dtype:
        return np.inf
    if answer.dtype.kind not in "fiubc":
        return 0.0 if (answer == other).all() else np.inf
    answer, other = answer.astype(np.complex128), other.astype(np.complex128)
    finite = np.isfinite(answer)
    if not np.array_equal(answer[~finite], other[~finite], equal_nan=True):
        return np.inf
    largest = np.abs(answer[finite]).max(initial=1.0)
    return float(np.abs(answer - other)[finite].max(initial=0.0) / largest)
