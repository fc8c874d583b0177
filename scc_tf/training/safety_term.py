"""The safety loss: the task loss on a random batch of the safety set."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

__all__ = ["SafetyTerm"]

LARGEST_INPUT = 1e4  # no network is trained on inputs beyond that


class SafetyTerm:
    """Draws safety examples beside a batch, and measures the loss on them.

    Args:
        model: the functional model that is trained.
        loss: task loss as given to ``compile``.
        safety_set: anything with ``images`` ``(S, …)`` and integer ``labels`` ``(S,)``.
        batch_size: safety examples per step.

    Raises:
        ValueError: if the safety set is missing, empty, inconsistent or unlike the model's inputs; if the model has
            several inputs or outputs, or the loss is not a single one.
    """

    def __init__(self, model, loss, safety_set, batch_size):
        if safety_set is None or len(safety_set.labels) == 0:
            raise ValueError(
                "Expected a safety set with at least one example, since lambda_safety > 0. "
                f"Received: safety_set={safety_set}"
            )
        images, labels = np.asarray(safety_set.images), np.asarray(safety_set.labels)
        if images.shape[:1] != (labels.size,):
            raise ValueError(
                "Expected one label per image of the safety set. "
                f"Received: images={images.shape}, labels={labels.shape}"
            )
        if batch_size < 1:
            raise ValueError(f"Expected a safety batch of at least one. Received: safety_batch_size={batch_size}")
        if len(model.inputs) != 1 or len(model.outputs) != 1 or not isinstance(loss, str | Callable):
            raise ValueError(
                "Expected a model with one input, one output and one loss for a safety loss. "
                f"Received: {len(model.inputs)} inputs, {len(model.outputs)} outputs, loss={loss}"
            )
        _check_examples(model, images, labels)
        self.images = tf.constant(images, model.inputs[0].dtype)
        self.labels = tf.constant(labels.reshape(-1), tf.int64)
        self.batch_size = int(batch_size)
        self._loss = keras.losses.get(loss)

    def join(self, x, step):
        """``x`` with a random batch of the safety images behind it, and the labels of these."""
        count = self.batch_size  # the draw depends on the step alone: an interrupted run goes on with it
        chosen = tf.random.stateless_uniform(
            (count,), (0, tf.cast(step, tf.int32)), maxval=tf.shape(self.labels)[0], dtype=tf.int32
        )
        both = tf.concat([tf.cast(x, self.images.dtype), tf.gather(self.images, chosen)], axis=0)
        return both, tf.gather(self.labels, chosen)

    def loss(self, y, labels, predictions):
        """The mean loss of the predictions; the labels take the form that those of the task, ``y``, have."""
        classes = predictions.shape[-1]
        if len(y.shape) == 2:
            labels = tf.one_hot(labels, classes) if y.shape[-1] == classes != 1 else labels[:, None]
        return tf.cast(tf.reduce_mean(self._loss(labels, tf.cast(predictions, tf.float32))), tf.float32)


def _check_examples(model, images, labels):
    """Refuse examples that the model can take but was not meant for."""
    shape, dtype, classes = model.inputs[0].shape, model.inputs[0].dtype, model.outputs[0].shape[-1]
    fits = all(want in (None, have) for want, have in zip(shape[1:], images.shape[1:], strict=False))
    if len(shape) != images.ndim or not fits:
        raise ValueError(f"Expected safety images of the model's input shape {shape}. Received: images={images.shape}")
    if images.dtype.kind in "iub" and keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "Expected safety images that are floats in the range the model is trained on. "
            f"Received: images of {images.dtype}"
        )
    largest = np.abs(images).max()
    if not largest <= LARGEST_INPUT:  # NaN is not
        raise ValueError(
            f"Expected safety images that are finite and within [-{LARGEST_INPUT:g}, {LARGEST_INPUT:g}], in the "
            f"range the model is trained on. Received: images with a value of magnitude {largest}"
        )
    classes = max(classes, 2)  # one output tells two classes apart
    if not np.isin(labels, np.arange(classes)).all():
        raise ValueError(
            f"Expected integer safety labels from 0 to {classes - 1}. "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )
