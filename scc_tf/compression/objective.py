"""What a network is trained for: its loss, and how good its answers are."""

import dataclasses
import typing

import keras
import numpy as np
import tensorflow as tf

from scc_tf.arguments import received
from scc_tf.classifier import last_activation
from scc_tf.inference import arranged, forward, outputs, tensors

__all__ = ["Objective", "objective_of"]

_OF_CLASSES = ("softmax", "sigmoid", "hard_sigmoid", "log_softmax")


@dataclasses.dataclass
class Objective:
    """What a network is trained for.

    Attributes:
        loss: as ``compile`` takes it.
        loss_weights: likewise; they make a loss about 1 where a network knows nothing, so that a size term means the
            same beside it.
        metrics: likewise.
        of_classes: whether the answers are classes.
        taught: whether the targets are the answers of the network that was handed in.
        name: of the loss, for people.
    """

    loss: typing.Any
    loss_weights: typing.Any
    metrics: list
    of_classes: bool
    taught: bool
    name: str

    def teach(self, model, dataset):
        """Batches with the answers of ``model`` as targets, where there are no others."""
        if not self.taught:
            return dataset

        def answered(*element):
            inputs = element[0]
            return inputs, forward(model, tensors(model, arranged(model, inputs)))

        return dataset.map(answered, num_parallel_calls=1)

    def score(self, answers, targets):
        """``{name: value}`` of the answers of a model: the loss, and the share of right answers of a classifier."""
        weights = None if self.of_classes or not isinstance(self.loss_weights, list | dict) else self.loss_weights
        found = {"loss": _mean_loss(self.loss, targets, answers, weights)}
        if self.of_classes:
            found["accuracy"] = self.agreement(answers, targets)
        return found

    def agreement(self, answers, others):
        """Share of the answers of a classifier that have the class of another's, or of the targets."""
        answers, others = np.asarray(answers), np.asarray(others)
        chosen = _classes(answers, "sparse" in self.name)
        if others.shape == answers.shape:
            return float(np.mean(chosen == _classes(others, "sparse" in self.name)))
        return float(np.mean(chosen == np.reshape(others, chosen.shape)))


def objective_of(model, inputs, targets, loss=None):
    """Find out what a network is trained for.

    Args:
        model: built functional or Sequential model. If it is compiled, its own loss is taken.
        inputs: examples, in the structure that the model takes.
        targets: theirs, or None: then the answers of the model are.
        loss: as ``compile`` takes it, where it cannot be found out.

    Returns:
        `Objective`.

    Raises:
        ValueError: if the loss cannot be found out, or does not fit the targets.
    """
    several = len(model.outputs) > 1
    activation = None if several else last_activation(model)
    name = getattr(activation, "__name__", None)
    taught = targets is None
    if taught:
        some = keras.tree.map_structure(lambda array: array[:1024], inputs)
        targets = outputs(model, some)
        loss = loss or keras.tree.map_structure(lambda _: _taught_loss(name), targets)
        of_classes = name in _OF_CLASSES
    else:
        loss = loss or _own_loss(model, inputs, targets) or _loss_of(model, name, targets)
        of_classes = not several and _is_of_classes(loss, targets, model)
    weights = None if of_classes or several else [1 / _ignorance(loss, targets)]
    if several and loss is getattr(model, "loss", None):
        weights = (model.get_compile_config() or {}).get("loss_weights")
    if of_classes and not taught:
        _check_classes(_name(loss), targets, model.outputs[0].shape[-1])
    return Objective(loss, weights, ["accuracy"] if of_classes else [], of_classes, taught, _name(loss))


def _check_classes(name, targets, classes):
    """Refuse class numbers that the network does not have."""
    targets = np.asarray(targets)
    whole = np.array_equal(targets, np.round(targets))
    if "sparse" in name and (not whole or targets.min() < 0 or targets.max() >= classes):
        raise ValueError(
            f"Expected targets to be classes from 0 to {classes - 1}. {received('targets', targets)}, "
            f"from {targets.min():g} to {targets.max():g}"
        )


def _own_loss(model, inputs, targets):
    """The loss that a model is compiled with, if it takes such targets."""
    loss = getattr(model, "loss", None)
    if loss is None:
        return None
    few, theirs = (keras.tree.map_structure(lambda array: array[:4], part) for part in (inputs, targets))
    try:
        return loss if np.isfinite(_mean_loss(loss, theirs, outputs(model, few))) else None
    except (ValueError, tf.errors.InvalidArgumentError):  # one-hot rows wanted and class numbers received, or so
        return None


def _taught_loss(activation):
    if activation == "softmax":
        return keras.losses.CategoricalCrossentropy()
    if activation == "sigmoid":
        return keras.losses.BinaryCrossentropy()
    return keras.losses.MeanSquaredError()


def _loss_of(model, activation, targets):
    """The usual loss of a network with one output, whose last activation is known."""
    if len(model.outputs) > 1:
        raise ValueError(
            f"Expected loss for a model of several outputs that is not compiled. Received: loss=None, "
            f"{len(model.outputs)} outputs of {model.name!r}"
        )
    shape, wanted = np.shape(targets), tuple(model.outputs[0].shape)
    classes = wanted[-1] or 0
    whole = np.asarray(targets).dtype.kind in "iub"
    indices = whole and classes > 1 and (len(shape) == len(wanted) - 1 or shape[-1] == 1)
    logits = activation not in _OF_CLASSES
    if activation == "log_softmax":
        raise ValueError(f"Expected loss for a model that ends in a log_softmax. {received('loss', None)}")
    if activation == "sigmoid" or (classes == 1 and whole and set(np.unique(targets)) <= {0, 1}):
        return keras.losses.BinaryCrossentropy(from_logits=logits)
    if indices:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    if classes > 1 and shape[1:] != wanted[1:] and None not in wanted[1:]:
        raise ValueError(
            f"Expected targets that fit the output {wanted} of {model.name!r}, or loss. {received('targets', targets)}"
        )
    one_hot = classes > 1 and shape[-1] == classes and np.allclose(np.sum(targets, axis=-1), 1)
    if activation == "softmax" or (one_hot and whole):
        return keras.losses.CategoricalCrossentropy(from_logits=logits)
    return keras.losses.MeanSquaredError()


def _name(loss):
    first = keras.tree.flatten(loss)[0]
    return str(getattr(first, "name", None) or getattr(first, "__name__", None) or first)


def _is_of_classes(loss, targets, model):
    name = _name(loss)
    if "crossentropy" not in name and "hinge" not in name:
        return False
    if "sparse" in name:
        return True
    last = model.outputs[0].shape[-1]
    return "binary" in name or (last is not None and last > 1)


def _function(loss):
    return keras.losses.get(loss) if isinstance(loss, str) else loss


def _mean_loss(loss, targets, answers, weights=None):
    """The loss of arrays; that of several outputs is the weighted sum."""
    losses, shares = keras.tree.flatten(loss), keras.tree.flatten(weights)
    answers, targets = keras.tree.flatten(answers), keras.tree.flatten(targets)
    if len(losses) == 1:
        losses *= len(answers)
    shares = [1.0] * len(losses) if weights is None else shares
    total = 0.0
    for function, share, target, answer in zip(losses, shares, targets, answers, strict=True):
        if target.ndim == answer.ndim - 1 and answer.shape[-1] == 1:
            target = target[..., None]
        with tf.device("cpu"):
            total += share * float(np.mean(_function(function)(target, answer)))
    return total


def _ignorance(loss, targets):
    """The loss of a network that answers the mean of the targets."""
    targets = np.asarray(keras.tree.flatten(targets)[0], np.float32)
    found = _mean_loss(loss, targets, np.broadcast_to(targets.mean(axis=0), targets.shape))
    return found if np.isfinite(found) and found > 0 else 1.0


def _classes(answers, alone):
    """The class of each answer, one ``alone``; or yes and no, where there is one unit or each has its own question."""
    probabilities = answers.min() >= 0 and answers.max() <= 1
    if answers.shape[-1] == 1:
        return (answers[..., 0] > (0.5 if probabilities else 0.0)).astype(int)
    if not alone and probabilities and not np.allclose(answers.sum(axis=-1), 1, atol=1e-2):
        return (answers > 0.5).astype(int)
    return answers.argmax(axis=-1)
