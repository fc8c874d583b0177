"""The safety loss: the task loss on a random batch of the safety set."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from scc_tf.arguments import check_count
from scc_tf.inference import arranged, packed
from scc_tf.safety import check_scorable

__all__ = ["SafetyTerm"]


class SafetyTerm:
    """Draws safety examples beside a batch, and measures the loss on them; arguments as for ``compile``."""

    def __init__(self, model, loss, safety_set, batch_size):
        self.batch_size = check_count("safety_batch_size", batch_size)
        if not isinstance(loss, str | Callable):
            raise ValueError(f"Expected a model with one output and one loss for a safety loss. Received: loss={loss}")
        if safety_set is None:
            raise ValueError("Expected a safety set, since lambda_safety > 0. Received: safety_set=None")
        arrays, labels = check_scorable(model, safety_set, loss)
        self._model = model
        self._are_bytes = [array.dtype.kind in "iu" and array.dtype.itemsize == 1 for array in arrays]
        self.images = [
            tf.constant(array if bytes_ else np.asarray(array, tensor.dtype))
            for array, tensor, bytes_ in zip(arrays, model.inputs, self._are_bytes, strict=True)
        ]
        self.labels = tf.constant(labels, tf.int64)
        self._loss = keras.losses.get(loss)

    def join(self, x, step):
        """``x`` with a random batch of the safety images behind it, and the labels of these."""
        count = self.batch_size  # the draw depends on the step alone: an interrupted run goes on with it
        chosen = tf.random.stateless_uniform(
            (count,), (0, tf.cast(step, tf.int32)), maxval=tf.shape(self.labels)[0], dtype=tf.int32
        )
        arrays = arranged(self._model, x, "x")
        self._compare(arrays)
        both = [
            tf.concat(
                [tf.cast(_like(array, images), tensor.dtype), tf.cast(tf.gather(images, chosen), tensor.dtype)], 0
            )
            for array, images, tensor in zip(arrays, self.images, self._model.inputs, strict=True)
        ]
        return packed(self._model, both), tf.gather(self.labels, chosen)

    def _compare(self, arrays):
        """Warn once, when the step is traced, where one side is of bytes and the other of floats."""
        for array, bytes_ in zip(arrays, self._are_bytes, strict=True):
            if bytes_ and tf.as_dtype(array.dtype).is_floating:
                logging.warning(
                    "The safety set has %s images, fit has %s: are both in the range that the model is trained on?",
                    "integer",
                    tf.as_dtype(array.dtype).name,
                )

    def loss(self, y, labels, predictions):
        """The mean loss of the predictions; the labels take the form that those of the task, ``y``, have."""
        classes = predictions.shape[-1]
        if classes == 1:  # in a column like the predictions: a loss function would combine all with all
            labels = labels[:, None]
        elif len(y.shape) == 2:
            labels = tf.one_hot(labels, classes) if y.shape[-1] == classes else labels[:, None]
        return tf.cast(tf.reduce_mean(self._loss(labels, tf.cast(predictions, tf.float32))), tf.float32)


def _like(x, images):
    """``x`` with the last axis of one that Keras would add."""
    return x[..., None] if len(x.shape) == len(images.shape) - 1 else x
