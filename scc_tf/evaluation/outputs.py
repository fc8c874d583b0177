"""What a classifier says, as logits."""

import dataclasses

import keras
import numpy as np

from scc_tf.classifier import border, classes_of, last_activation
from scc_tf.inference import check_inputs, outputs
from scc_tf.metrics import softmax
from scc_tf.metrics.probabilities import ROW_TOLERANCE

__all__ = ["ClassifierOutputs", "check_sets", "classifier_outputs", "number_of_classes"]


@dataclasses.dataclass(frozen=True)
class ClassifierOutputs:
    """Logits of several sets of inputs.

    Attributes:
        logits: ``{set: float64 array (N, K)}``.
        are_logits: False where the model returned probabilities, and ``logits`` are their logarithms, or has one unit
            for two classes: the same probabilities, but no energy.
    """

    logits: dict
    are_logits: bool

    def probabilities(self, name, temperature=1.0):
        """Class probabilities of one set, float64 ``(N, K)``."""
        return softmax(self.logits[name], temperature)


def number_of_classes(model, name="model"):
    """``K`` of a classifier, without running it; see `scc_tf.classifier.classes_of`.

    Raises:
        ValueError: if it is none, or has a sigmoid on each class: these are neither logits nor probabilities of one
            class out of all.
    """
    classes = classes_of(model, name)
    if model.outputs[0].shape[1] > 1 and last_activation(model) is keras.activations.sigmoid:
        raise ValueError(f"Expected logits or softmax probabilities. Received: {name!r} with a sigmoid on each class")
    return classes


def check_sets(model, sets, name="model"):
    """Sets of inputs as ``{set: list of arrays}``, before the model is run; the arguments are those below."""
    return {key: check_inputs(f"inputs for {name!r} on the {key} set", own, model) for key, own in sets.items()}


def classifier_outputs(model, sets, name="model", batch_size=None):
    """Run a classifier over sets of inputs, in inference mode.

    Outputs are taken for probabilities if no row of any set has a negative entry and every row sums to 1.

    Args:
        model: built Sequential or functional Keras model with one output ``(N, K)``, or one unit for two classes.
        sets: ``{set: inputs}``, in the structure, shape and range that the model takes.
        name: of the model, for what is raised.
        batch_size: examples per forward pass; None: as many as memory allows, 500 at most.

    Returns:
        `ClassifierOutputs`.

    Raises:
        ValueError: if the model is no such classifier, the inputs are not finite or have another shape than it takes,
            or an output is not finite.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
        >>> classifier_outputs(model, {"test": np.ones((4, 2))}).are_logits
        False
    """
    number_of_classes(model, name)
    answers = {}
    for key, arrays in check_sets(model, sets, name).items():
        (values,) = keras.tree.flatten(outputs(model, arrays, batch_size))
        answers[key] = values = values.astype(np.float64)
        if wrong := np.sum(~np.isfinite(values)):
            raise ValueError(f"Expected finite outputs. Received: {wrong} that are not, of {name!r} on the {key} set")
    if model.outputs[0].shape[1] == 1:
        if border(model) == 0:
            return ClassifierOutputs({key: np.pad(z, ((0, 0), (1, 0))) for key, z in answers.items()}, False)
        answers = {key: np.concatenate([1 - p, p], axis=1) for key, p in answers.items()}
    elif not all(p.min() >= 0 and np.abs(p.sum(axis=1) - 1).max() <= ROW_TOLERANCE for p in answers.values()):
        return ClassifierOutputs(answers, are_logits=True)
    smallest = np.finfo(np.float32).tiny  # of what a float32 softmax can return besides 0
    return ClassifierOutputs({key: np.log(np.maximum(p, smallest)) for key, p in answers.items()}, are_logits=False)
