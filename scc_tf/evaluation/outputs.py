"""What a classifier says about images, as logits."""

import dataclasses

import keras
import numpy as np

from scc_tf.graph import check_functional
from scc_tf.metrics import softmax
from scc_tf.metrics.probabilities import ROW_TOLERANCE

__all__ = ["ClassifierOutputs", "classifier_outputs", "number_of_classes"]

BATCH_SIZE = 500


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
        ValueError: if the model is subclassed or not built, or has several inputs or outputs or one class only.
    """
    check_functional(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise ValueError(
            "Expected a classifier with one input and one output (N, K). Received: "
            f"{name!r} with inputs {[t.shape for t in model.inputs]} and outputs {[t.shape for t in model.outputs]}"
        )
    if model.outputs[0].shape[1] == 1:
        raise ValueError(f"Expected one output per class. Received: {name!r} with output {model.outputs[0].shape}")
    return model.outputs[0].shape[1]


def classifier_outputs(model, images, name="model"):
    """Run a classifier over sets of images, in inference mode.

    Outputs are taken for probabilities if no row of any set has a negative entry and every row sums to 1.

    Args:
        model: built Sequential or functional Keras model with one input and one output ``(N, K)``, ``K >= 2``.
        images: ``{set: array (N, ...)}`` in the shape and range that the model was trained for.
        name: of the model, for what is raised.

    Returns:
        `ClassifierOutputs`.

    Raises:
        ValueError: if the model is subclassed or not built, has several inputs or outputs or one class only, the images
            have another shape than it takes, or an output is not finite.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
        >>> classifier_outputs(model, {"test": np.ones((4, 2))}).are_logits
        False
    """
    number_of_classes(model, name)
    outputs = {key: _outputs(model, np.asarray(array), f"{name!r} on the {key} set") for key, array in images.items()}
    if not all(_are_probabilities(array) for array in outputs.values()):
        return ClassifierOutputs(outputs, are_logits=True)
    smallest = np.finfo(np.float32).tiny  # of what a float32 softmax can return besides 0
    return ClassifierOutputs({key: np.log(np.maximum(p, smallest)) for key, p in outputs.items()}, are_logits=False)


def _outputs(model, images, what):
    expected = model.inputs[0].shape
    fits = images.ndim == len(expected) and all(
        size in (None, given) for size, given in zip(expected[1:], images.shape[1:], strict=True)
    )
    if not fits or not len(images):
        raise ValueError(f"Expected images {tuple(expected)}, at least one. Received: {images.shape} for {what}")
    batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
    structures = [keras.tree.flatten(model(batch, training=False))[0] for batch in batches]
    outputs = np.concatenate([keras.ops.convert_to_numpy(values) for values in structures]).astype(np.float64)
    if not np.isfinite(outputs).all():
        raise ValueError(f"Expected finite outputs. Received: {np.sum(~np.isfinite(outputs))} that are not, of {what}")
    return outputs


def _are_probabilities(outputs):
    return bool(outputs.min() >= 0 and np.abs(outputs.sum(axis=1) - 1).max() <= ROW_TOLERANCE)
