"""How many of the examples that must not get worse a model gets right."""

import numpy as np

from scc_tf.arguments import check_count, received
from scc_tf.classifier import class_labels, classes_of, predicted_classes
from scc_tf.inference import check_inputs, outputs

__all__ = ["check_safety_set", "check_scorable", "right_answers", "safety_accuracy"]


def check_safety_set(safety_set):
    """Refuse what is no safety set, whatever the model: ``images`` and ``labels``, one for each, not empty."""
    if not hasattr(safety_set, "images") or not hasattr(safety_set, "labels"):
        raise ValueError(f"Expected safety_set to have images and labels. {received('safety_set', safety_set)}")
    images, labels = safety_set.images, safety_set.labels
    try:
        counts = len(labels), len(images)
    except TypeError:
        raise ValueError(
            f"Expected the images and labels of safety_set to be arrays. {received('labels', labels)}"
        ) from None
    one_array = hasattr(images, "shape")  # else there may be one for each input of the model
    if not counts[0] or not counts[1] or (one_array and counts[0] != counts[1]):
        raise ValueError(
            "Expected a safety set with at least one example and one label for each. "
            f"Received: safety_set of {counts[1]} images, {counts[0]} labels"
        )
    return safety_set


def check_scorable(model, safety_set, loss=None):
    """Refuse a model or a safety set whose accuracy would mean nothing, see `safety_accuracy`; without running it.

    Returns:
        ``(images, labels)``: one array per input of the model; int64 ``(S,)``.
    """
    check_safety_set(safety_set)
    classes_of(model, loss=loss)
    images = check_inputs("safety_set.images", safety_set.images, model)
    return images, class_labels(safety_set.labels, model, len(images[0]), "safety_set.labels", loss)


def safety_accuracy(model, safety_set, batch_size=None):
    """Accuracy on a safety set, in inference mode.

    Args:
        model: Keras classifier with outputs ``(N, K)``; one unit tells two classes apart, see `scc_tf.classifier`.
        safety_set: `scc_tf.SafetySet`, or anything with ``images``, as the model takes them, and ``labels`` of any
            form that `scc_tf.classifier.class_labels` knows.
        batch_size: examples per forward pass; None: as many as memory allows, 500 at most.

    Returns:
        The fraction of right answers, in [0, 1].

    Raises:
        ValueError: if the model is no classifier with one output, its inputs are not like the images, the labels are
            none of its classes, or an answer is NaN.
    """
    if batch_size is not None:
        check_count("batch_size", batch_size)
    images, labels = check_scorable(model, safety_set)
    return right_answers(outputs(model, images, batch_size), labels, model)


def right_answers(answers, labels, model=None):
    """Fraction of answers ``(S, K)`` that are right, whoever gave them: a Keras model, or a file that was run.

    Without the model that tells what they mean, the largest one counts.
    """
    answers = np.asarray(answers)
    if model is None and (answers.ndim != 2 or answers.shape[1] < 2):
        raise ValueError(f"Expected one answer (S, K) per class. {received('answers', answers)}")
    labels = class_labels(labels, answers.shape[1] if model is None else model, len(answers))
    return float(np.mean(predicted_classes(answers, model) == labels))
