"""Training batches of shifted and mirrored images."""

import numpy as np
import tensorflow as tf

__all__ = ["statistics_images", "training_batches"]


def training_batches(
    split, batch_size, seed, shift=0, skip_epochs=0, mirror=False, soft_labels=None, augmentation=None
):
    """Endlessly shuffled batches of a split, each image shifted by up to ``shift`` pixels in both directions.

    Args:
        split: `scc_tf.datasets.Split`.
        batch_size: examples per batch, at most as many as the split has; batches run across the ends of epochs.
        seed: of order and shifts.
        shift: pixels.
        skip_epochs: begin where a run that was interrupted after so many epochs goes on.
        mirror: whether every other image, at random, is flipped left to right.
        soft_labels: float array ``(2 shift + 1, 2 shift + 1, examples, classes)`` that takes the place of the labels:
            those of an image by the row and the column at which it begins in the padded image.
        augmentation: function ``(images, seed, number of the batch) -> images`` of tensors that takes the place of
            shifts and mirroring.

    Returns:
        ``(tf.data.Dataset, steps per epoch)``.

    Raises:
        ValueError: if the split has fewer examples than a batch, or ``augmentation`` comes with what it replaces.
    """
    if augmentation is not None and (shift or mirror or soft_labels is not None):
        raise ValueError(
            "Expected augmentation in place of shift, mirror and soft_labels. "
            f"Received: shift={shift}, mirror={mirror}, soft_labels={'some' if soft_labels is not None else None}"
        )
    count = len(split.labels)
    if count < batch_size:
        raise ValueError(f"Expected batch_size to be at most {count}, all examples. Received: batch_size={batch_size}")

    def move(index, images_and_labels):
        images, labels = images_and_labels
        height, width = images.shape[1:3]
        rows, columns = (tf.range(size, dtype=tf.int64)[None] for size in (height, width))
        if mirror:  # read backwards: many times faster than to reverse all images and choose
            flips = tf.random.stateless_uniform((batch_size, 1), (seed + 1, index)) < 0.5
            columns = tf.where(flips, columns[:, ::-1], columns)
        if shift or table is not None:
            offsets = tf.random.stateless_uniform((batch_size, 2), (seed, index), 0, 2 * shift + 1, dtype=tf.int64)
            images = tf.pad(images, [[0, 0], [shift, shift], [shift, shift], [0, 0]])
            images = tf.gather(images, offsets[:, :1] + rows, axis=1, batch_dims=1)
            columns += offsets[:, 1:]
        images = tf.gather(images, columns, axis=2, batch_dims=1)
        if table is not None:
            labels = tf.gather_nd(table, tf.concat([offsets, labels[:, None]], axis=1))
        return images, labels

    table, labels = None, split.labels
    if soft_labels is not None:
        table, labels = tf.constant(soft_labels), np.arange(count)
    batches = tf.data.Dataset.from_tensor_slices((split.images, labels)).shuffle(count, seed=seed)
    batches = batches.repeat().batch(batch_size, drop_remainder=True)
    steps = count // batch_size
    batches = batches.enumerate().skip(skip_epochs * steps)  # a batch keeps its number, which decides its shifts
    if augmentation is not None:
        return batches.map(lambda index, batch: (augmentation(batch[0], seed, index), batch[1])).prefetch(2), steps
    moving = shift or mirror or table is not None
    return batches.map(move if moving else lambda index, batch: batch).prefetch(2), steps


def statistics_images(split, count, seed, shift=0, mirror=False):
    """Images for batch statistics, shifted and mirrored as in training.

    A network wants the statistics that it was trained with, see
    `scc_tf.batch_statistics.reestimate_batch_statistics`.

    Args:
        split: `scc_tf.datasets.Split`.
        count: images; all of the split where it has fewer.
        seed: of the choice and of the shifts.
        shift: as in training, pixels.
        mirror: likewise.

    Returns:
        float32 ``(count, H, W, C)``.
    """
    batches, _ = training_batches(split, min(count, len(split.labels)), seed, shift, mirror=mirror)
    return next(iter(batches))[0].numpy()
