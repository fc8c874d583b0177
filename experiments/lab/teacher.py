"""Soft labels: what a larger network says of training images, of all shifts beforehand.

The answers take the place of labels: their logits are divided by a temperature, those of the network that learns are
not, as the records have it. `lab.filter_clustering.distillation` has the paper's loss.

Source: Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).
"""

import keras
import numpy as np
from scipy import special

from lab import models
from lab.batches import training_batches
from lab.optimization import one_cycle
from lab.stage import Stage, error_percent, intact
from scc_tf.atomic import atomic_path
from scc_tf.batch_statistics import reestimate_batch_statistics

__all__ = ["answers", "one_hot", "soft_labels"]

EPOCHS, BATCH_SIZE, LEARNING_RATE = 6, 128, 2e-3  # of the teacher
STATISTICS_IMAGES = 8192


def soft_labels(data, shift, weight, temperature, work_dir, verbose=1):
    """Labels of the training split, mixed with the answers of a float MNIST CNN that was trained on the same split.

    Args:
        data: `scc_tf.datasets.Dataset`.
        shift: largest shift of a training image, pixels.
        weight: of the teacher, from 0 to 1; the label has the rest.
        temperature: by which the teacher's logits are divided.
        work_dir: folder (`pathlib.Path`) in which the teacher and its answers are cached.
        verbose: as in ``fit``.

    Returns:
        float32 array ``(2 shift + 1, 2 shift + 1, images, classes)`` for `training_batches`: rows sum to 1.
    """
    stage = Stage(work_dir / f"teacher-{EPOCHS}-{shift}", backup="backup")
    logits = stage.folder / "logits.npy"
    if not logits.exists():
        table = answers(_teacher(stage, data, shift, verbose), data.train.images, shift)
        with atomic_path(logits) as partial:
            np.save(partial, table)
    with intact(logits):
        probabilities = special.softmax(np.load(logits).astype(np.float32) / temperature, axis=-1)
    return (1 - weight) * one_hot(data.train.labels, data.num_classes) + weight * probabilities


def _teacher(stage, data, shift, verbose):
    model = models.mnist_cnn(seed=0)
    batches = training_batches(data.train, BATCH_SIZE, 0, shift, stage.finished_epochs)
    optimizer = keras.optimizers.Adam(one_cycle(LEARNING_RATE, batches[1] * EPOCHS))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)

    def finish(model):
        reestimate_batch_statistics(model, data.train.images[:STATISTICS_IMAGES])
        return {"validation_error": error_percent(model, data.validation)}

    stage.train(model, batches, EPOCHS, finish, verbose)
    return model


def answers(model, images, shift):
    """Logits of a model for every image at every shift.

    Args:
        model: Keras model.
        images: ``(N, H, W, C)``.
        shift: largest shift, pixels.

    Returns:
        float16 array ``(2 shift + 1, 2 shift + 1, N, classes)``; the shifts are those of `training_batches`, by their
        offsets in the padded image.
    """
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    offsets = range(2 * shift + 1)
    moved = [[padded[:, y : y + height, x : x + width] for x in offsets] for y in offsets]
    return np.array([[model.predict(m, batch_size=500, verbose=0) for m in row] for row in moved], np.float16)


def one_hot(labels, classes):
    """float32 array ``(N, classes)``."""
    return np.eye(classes, dtype=np.float32)[labels]
