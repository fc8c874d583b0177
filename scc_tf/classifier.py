"""What a classifier says, and whether it is right: the one place that decides what its outputs and labels mean.

Shapes: ``N`` examples, ``K`` classes.
"""

import keras
import numpy as np

from scc_tf.arguments import check_array, received
from scc_tf.keras_private import producing_call

__all__ = ["border", "class_labels", "classes_of", "last_activation", "predicted_classes"]

_OF_NUMBERS = {  # losses of networks that do not choose between classes
    *("huber", "log_cosh", "logcosh", "mae", "mape", "mean_absolute_error", "mean_absolute_percentage_error"),
    *("mean_squared_error", "mean_squared_logarithmic_error", "mse", "msle", "poisson"),
}
_OF_LOGITS = {  # losses that put the border between two classes at 0
    *("binary_crossentropy of logits", "binary_focal_crossentropy of logits", "hinge", "squared_hinge"),
}


def classes_of(model, name="model", loss=None):
    """The number of classes that a model tells apart, at least 2, without running it.

    ====================  =====================================================================================
    output                answer
    ====================  =====================================================================================
    ``(N, K)``, K >= 2    the class with the largest score, be it a logit or a probability
    ``(N, 1)``            class 1 or class 0: one unit with a sigmoid, above or below 1/2; one without an
                          activation is a logit, above or below 0
    ====================  =====================================================================================

    Args:
        model: built Sequential or functional model with one output; any number of inputs.
        name: what to call it in an error.
        loss: that it is trained with; None: the one that it is compiled with, if any.

    Raises:
        ValueError: if the outputs are none of these: several outputs, one for every pixel or step, or one unit that
            may be a number.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ValueError(
            f"Expected {name} to be a built functional or Sequential keras.Model, whose graph of layers is known. "
            f"{received(name, model)}"
        )
    shapes = [tuple(tensor.shape) for tensor in model.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or not shapes[0][1]:
        raise ValueError(
            f"Expected {name} to be a classifier with one output (N, K), a score per class. "
            f"Received: {len(model.inputs)} inputs, {len(shapes)} outputs {shapes} of {model.name!r}"
        )
    if shapes[0][1] == 1:
        border(model, name, loss)
    return max(shapes[0][1], 2)


def class_labels(labels, classes_or_model, count=None, name="labels", loss=None):
    """Labels of any form that ``fit`` takes, as class numbers: int64 ``(N,)``.

    Args:
        labels: whole numbers ``(N,)`` or ``(N, 1)`` in [0, K); or one-hot rows ``(N, K)``.
        classes_or_model: ``K``, or a model that `classes_of` accepts.
        count: ``N``; None takes any, but 0.
        name: of the argument, for the error.
        loss: of the model, see `classes_of`.

    Raises:
        ValueError: if they are none. Rows of 0 and 1 are none where each unit has a sigmoid or a binary loss: there
            they may answer several questions at once. Nor are numbers for a model with a loss of numbers.

    Example:
        >>> class_labels([[0, 1], [1, 0]], 2).tolist()
        [1, 0]
    """
    model = classes_or_model if isinstance(classes_or_model, keras.Model) else None
    classes = classes_or_model if model is None else classes_of(model, loss=loss)
    loss = None if model is None else _loss_name(model, loss)
    array = check_array(name, labels)
    if count is not None and len(array) != count:
        raise ValueError(f"Expected {name} to hold one label per example, {count}. {received(name, array)}")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    wanted = f"Expected {name} to hold one class per example: whole numbers ({len(array)},)"
    rows = f"{wanted}, or one-hot rows of {classes}"
    if array.ndim == 2 and array.shape[1] == classes and (model is None or model.outputs[0].shape[1] == classes):
        if not ((array == 0) | (array == 1)).all() or (np.sum(array, axis=1) != 1).any():
            raise ValueError(f"{rows}; these rows are not one-hot. {received(name, array)}")
        sigmoid = model is not None and last_activation(model) is keras.activations.sigmoid
        if sigmoid or (loss or "").startswith("binary"):
            raise ValueError(
                f"{wanted}; rows of 0 and 1 may be several answers where each unit has its own. {received(name, array)}"
            )
        return array.argmax(axis=1)
    whole = array.ndim == 1 and (array.dtype.kind != "f" or (array == np.round(array)).all())
    if not whole or loss in _OF_NUMBERS:
        reason = f"; {model.name!r} is trained for numbers, with the loss {loss}" if whole else ""
        raise ValueError(f"{rows}{reason}. {received(name, np.asarray(labels))}")
    if array.min() < 0 or array.max() >= classes:
        raise ValueError(
            f"Expected {name} to hold classes from 0 to {classes - 1}. "
            f"Received: {name} from {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def predicted_classes(answers, model=None):
    """The class that is chosen for each example: int64 ``(N,)``.

    Args:
        answers: float ``(N, K)``; or ``(N, 1)`` of a model. NaN raises; infinite ones are compared like any other.
        model: a model that `classes_of` accepts, whose outputs they are; needed for ``(N, 1)``.
    """
    answers = np.asarray(answers)
    answers = answers.astype(np.result_type(answers, np.float32), copy=False)
    if np.isnan(answers).any():
        raise ValueError(
            f"Expected finite answers{f' from {model.name!r}' if model else ''}. "
            f"Received: NaN for {np.isnan(answers).any(axis=1).sum()} of {len(answers)} examples"
        )
    if answers.shape[1] == 1:
        return (answers[:, 0] > border(model)).astype(np.int64)
    return answers.argmax(axis=1).astype(np.int64)


def border(model, name="model", loss=None):
    """Where the one unit of a model passes from class 0 to class 1; the arguments are those of `classes_of`."""
    activation, loss = last_activation(model), _loss_name(model, loss)
    if activation in (keras.activations.sigmoid, keras.activations.hard_sigmoid):
        return 0.5
    if activation is keras.activations.linear and (loss is None or loss in _OF_LOGITS):
        return 0.0
    raise ValueError(
        f"Expected {name} to have one output per class, or one unit with a sigmoid, or one without an activation that "
        f"is trained as a logit. Received: {model.name!r} with output_shape={tuple(model.outputs[0].shape)}, "
        f"activation={getattr(activation, '__name__', activation)}, loss={loss}"
    )


def last_activation(model):
    """The function that makes the outputs of a model; None where it is not known."""
    tensor = model.outputs[0]
    while True:
        operation, inputs, _, place = producing_call(tensor)
        if isinstance(operation, keras.Model) and operation.outputs:
            tensor = operation.outputs[place]
            continue
        if type(operation).__name__.lower() == "sigmoid":  # keras.ops.sigmoid
            return keras.activations.sigmoid
        activation = getattr(operation, "activation", None)
        casts = isinstance(operation, keras.layers.Activation) and activation is keras.activations.linear
        if not casts:  # such as the one that makes float32 of half precision
            return activation
        tensor = inputs[0]


def _loss_name(model, loss=None):
    """Of a model, in the form ``mean_squared_error``, "of logits" behind it where it is; None where there is none."""
    loss = getattr(model, "loss", None) if loss is None else loss
    if isinstance(loss, list | tuple | dict) and len(keras.tree.flatten(loss)) == 1:
        (loss,) = keras.tree.flatten(loss)
    if loss is None:
        return None
    name = str(getattr(loss, "name", None) or getattr(loss, "__name__", None) or loss)
    return f"{name} of logits" if getattr(loss, "from_logits", False) else name
