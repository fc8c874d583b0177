"""Learn from labels and from what another network says of the very images of the batch.

Source: Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).
"""

import keras
import tensorflow as tf
from keras import ops

__all__ = ["DistillationLoss", "label_accuracy", "with_answers"]


def with_answers(batches, teacher):
    """Batches whose labels carry the logits that a network gives for the images.

    Args:
        batches: `tf.data.Dataset` of images ``(B, …)`` and labels, int ``(B,)``.
        teacher: Keras model of logits ``(B, K)``.

    Returns:
        `tf.data.Dataset` of images and float32 ``(B, 1 + K)``: the label, then the logits.
    """

    def answered(images, labels):
        said = tf.cast(teacher(images, training=False), tf.float32)
        return images, tf.concat([tf.cast(labels[:, None], tf.float32), said], axis=1)

    return batches.map(answered).prefetch(2)


class DistillationLoss(keras.losses.Loss):
    """``(1 - w) CE(label, z) + w T^2 CE(softmax(t / T), z / T)`` of logits ``z``, with labels of `with_answers`.

    Both networks are asked at the same temperature. The gradient of the second term falls with ``T^2``: the factor
    makes up for it, so that the weight means the same at every temperature.

    Args:
        weight: ``w`` of the answers ``t``, from 0 to 1.
        temperature: ``T``, positive.
    """

    def __init__(self, weight, temperature):
        super().__init__(name="distillation")
        self.weight, self.temperature = weight, temperature

    def call(self, y_true, y_pred):
        """The loss of every example, ``(B,)``."""
        label, said = y_true[:, 0], ops.softmax(y_true[:, 1:] / self.temperature)
        hard = ops.sparse_categorical_crossentropy(label, y_pred, from_logits=True)
        soft = ops.categorical_crossentropy(said, y_pred / self.temperature, from_logits=True)
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft


def label_accuracy(y_true, y_pred):
    """Whether each example's label, of `with_answers`, has the largest logit, ``(B,)``."""
    return keras.metrics.sparse_categorical_accuracy(y_true[:, 0], y_pred)
