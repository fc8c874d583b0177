"""What a classifier says about images, as logits."""

import dataclasses

import keras
import numpy as np

from scc_tf.classifier import last_activation
from scc_tf.graph import check_functional
from scc_tf.inference import check_inputs, outputs
from scc_tf.metrics import softmax
from scc_tf.metrics.probabilities import ROW_TOLERANCE

__all__ = ["ClassifierOutputs", "check_images", "classifier_outputs", "number_of_classes"]


@dataclasses.dataclass(frozen=True)
class ClassifierOutputs:
    """Logits of several sets of images.

    Attributes:
        logits: ``{set: float64 array (N, K)}``.
        are_logits: False where the model returned probabilities, and ``logits`` are their logarithms: the same
            probabilities, but no energy.
    """

    logits: dict
    are_logits: bool

    def probabilities(self, name, temperature=1.0):
        """Class probabilities of one set, float64 ``(N, K)``."""
        return softmax(self.logits[name], temperature)


def number_of_classes(model, name="model"):
    """``K`` of a classifier ``(N, ...) -> (N, K)``, without running it.

    Args:
        model: Keras model.
        name: of the model, for what is raised.

    Raises:
        ValueError: if the model is subclassed or not built, has several inputs or outputs or one class only, or a
            sigmoid on each class: these are neither logits nor probabilities of one class out of all.
    """
    check_functional(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise ValueError(
            "Expected a classifier with one input and one output (N, K). Received: "
            f"{name!r} with inputs {[t.shape for t in model.inputs]} and outputs {[t.shape for t in model.outputs]}"
        )
    if model.outputs[0].shape[1] == 1:
        raise ValueError(f"Expected one output per class. Received: {name!r} with output {model.outputs[0].shape}")
    if last_activation(model) is keras.activations.sigmoid:
        raise ValueError(f"Expected logits or softmax probabilities. Received: {name!r} with a sigmoid on each class")
    return model.outputs[0].shape[1]


def check_images(model, images, name="model"):
    """Refuse sets of images that a model cannot take, before it is run; the arguments are those below.

    Returns:
        ``{set: list of one array}``.
    """
    return {key: check_inputs(f"images for {name!r} on the {key} set", own, model) for key, own in images.items()}


def classifier_outputs(model, images, name="model", batch_size=None):
    """Run a classifier over sets of images, in inference mode.

    Outputs are taken for probabilities if no row of any set has a negative entry and every row sums to 1.

    Args:
        model: built Sequential or functional Keras model with one input and one output ``(N, K)``, ``K >= 2``.
        images: ``{set: array (N, ...)}`` in the shape and range that the model was trained for.
        name: of the model, for what is raised.
        batch_size: examples per forward pass; None: as many as memory allows, 500 at most.

    Returns:
        `ClassifierOutputs`.

    Raises:
        ValueError: if the model is subclassed or not built, has several inputs or outputs or one class only, the images
            are not finite or have another shape than it takes, or an output is not finite.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
        >>> classifier_outputs(model, {"test": np.ones((4, 2))}).are_logits
        False
    """
    number_of_classes(model, name)
    found = {
        key: _finite(outputs(model, arrays, batch_size), f"{name!r} on the {key} set")
        for key, arrays in check_images(model, images, name).items()
    }
    if not all(_are_probabilities(array) for array in found.values()):
        return ClassifierOutputs(found, are_logits=True)
    smallest = np.finfo(np.float32).tiny  # of what a float32 softmax can return besides 0
    return ClassifierOutputs({key: np.log(np.maximum(p, smallest)) for key, p in found.items()}, are_logits=False)


def _finite(answers, what):
    (values,) = keras.tree.flatten(answers)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"Expected finite outputs. Received: {np.sum(~np.isfinite(values))} that are not, of {what}")
    return values


def _are_probabilities(outputs):
    return bool(outputs.min() >= 0 and np.abs(outputs.sum(axis=1) - 1).max() <= ROW_TOLERANCE)
