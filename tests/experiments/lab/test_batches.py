import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from lab import datasets
from lab.batches import statistics_images, training_batches


def numbered(count=12):
    """Images whose pixels are all different, labelled by their number."""
    images = np.arange(1, count * 20 + 1, dtype=np.float32).reshape(count, 5, 4, 1)
    return datasets.Split(images, np.arange(count))


def first_batches(split, batch_size, number, seed=0, shift=0, skip_epochs=0):
    batches, _ = training_batches(split, batch_size, seed, shift, skip_epochs)
    return [(images.numpy(), labels.numpy()) for images, labels in batches.take(number)]


@pytest.mark.parametrize("shift", [0, 2])
def test_batches_have_static_shapes_and_a_length(shift):
    batches, steps = training_batches(numbered(), 5, 0, shift)
    assert steps == 2
    assert [spec.shape.as_list() for spec in batches.element_spec] == [[5, 5, 4, 1], [5]]


def test_an_epoch_shows_every_image_once_and_the_next_one_in_another_order():
    labels = [labels for _, labels in first_batches(numbered(), 4, 6)]
    first, second = np.concatenate(labels[:3]), np.concatenate(labels[3:])
    assert sorted(first) == sorted(second) == list(range(12))
    assert first.tolist() != second.tolist() != list(range(12))


def test_without_shift_images_are_untouched():
    split = numbered()
    for images, labels in first_batches(split, 4, 6):
        np.testing.assert_array_equal(images, split.images[labels])


def test_each_image_is_shifted_on_its_own_by_at_most_shift_pixels_with_zeros_behind():
    split, seen = numbered(), set()
    for images, labels in first_batches(split, 4, 40, shift=1):
        for image, label in zip(images, labels, strict=True):
            padded = np.pad(split.images[label], ((1, 1), (1, 1), (0, 0)))
            candidates = {(y, x): padded[y : y + 5, x : x + 4] for y in range(3) for x in range(3)}
            found = [offset for offset, candidate in candidates.items() if np.array_equal(candidate, image)]
            assert len(found) == 1
            seen.add((label, *found[0]))
    assert {(y, x) for _, y, x in seen} == {(y, x) for y in range(3) for x in range(3)}
    assert len(seen) > 60  # of 12 images times 9 shifts: one shift per image, not per batch


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0, 1])
def test_the_seed_decides_order_and_shifts(shift):
    def content(seed):
        keras.utils.set_random_seed(0)
        return [images.tobytes() for images, _ in first_batches(numbered(), 4, 8, seed, shift)]

    assert content(3) == content(3)
    assert content(3) != content(4)


@pytest.mark.parametrize("shift", [0, 1])
def test_skipped_epochs_leave_the_later_batches_as_they_were(shift):
    whole = first_batches(numbered(13), 4, 9, shift=shift)
    later = first_batches(numbered(13), 4, 3, shift=shift, skip_epochs=2)
    for (images, labels), (same_images, same_labels) in zip(whole[6:], later, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


def slow_batches(split, batch_size, seed, shift):
    """The stream as it was defined before epochs could be skipped; records in experiments/results/ hang on it."""

    def move(index, images_and_labels):
        images, labels = images_and_labels
        offsets = tf.random.stateless_uniform((batch_size, 2), (seed, index), 0, 2 * shift + 1, dtype=tf.int64)
        images = tf.pad(images, [[0, 0], [shift, shift], [shift, shift], [0, 0]])
        moved = [x[y0 : y0 + 5, x0 : x0 + 4] for x, (y0, x0) in zip(tf.unstack(images), offsets.numpy(), strict=True)]
        return tf.stack(moved), labels

    batches = tf.data.Dataset.from_tensor_slices(tuple(split)).shuffle(len(split.labels), seed=seed)
    for index, batch in batches.repeat().batch(batch_size, drop_remainder=True).enumerate():
        yield move(index, batch)


@pytest.mark.parametrize("shift", [0, 1])
def test_the_stream_of_an_uninterrupted_run_is_what_it_always_was(shift):
    expected = itertools.islice(slow_batches(numbered(), 5, 3, shift), 9)
    for (images, labels), (images_then, labels_then) in zip(
        first_batches(numbered(), 5, 9, 3, shift), expected, strict=True
    ):
        np.testing.assert_array_equal(images, images_then)
        np.testing.assert_array_equal(labels, labels_then)


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(ValueError, match="batch_size=13"):
        training_batches(numbered(), 13, 0)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0, 1])
def test_every_other_image_is_mirrored_on_its_own(shift):
    split, flipped = numbered(), []
    batches, _ = training_batches(split, 4, 0, shift, mirror=True)
    straight = first_batches(split, 4, 40, shift=shift)
    for (images, labels), (_, same_labels) in zip(batches.take(40), straight, strict=True):
        np.testing.assert_array_equal(labels, same_labels)
        for image, label in zip(images.numpy(), labels.numpy(), strict=True):
            padded = np.pad(split.images[label], ((shift, shift), (shift, shift), (0, 0)))
            offsets = list(itertools.product(range(2 * shift + 1), repeat=2))
            crops = [padded[y : y + 5, x : x + 4] for y, x in offsets]
            found = [any(np.array_equal(c[:, ::step], image) for c in crops) for step in (1, -1)]
            assert sorted(found) == [False, True]
            flipped.append(found[1])
    assert 0.35 < np.mean(flipped) < 0.65
    assert {any(f) and not all(f) for f in np.reshape(flipped, (-1, 4))} == {False, True}  # not by the batch


@pytest.mark.slow
def test_the_seed_decides_what_is_mirrored_and_epochs_can_be_skipped():
    def content(seed, skip_epochs=0):
        batches, _ = training_batches(numbered(), 4, seed, 1, skip_epochs, mirror=True)
        return [images.numpy().tobytes() for images, _ in batches.take(9 - 3 * skip_epochs)]

    whole = content(3)
    assert whole[6:] == content(3, skip_epochs=2)
    assert whole != content(4)


def test_statistics_images_are_views_as_training_has_them():
    split = numbered(30)
    images = statistics_images(split, 20, seed=1, shift=2, mirror=True)
    batches, _ = training_batches(split, 20, 1, 2, mirror=True)
    np.testing.assert_array_equal(images, next(iter(batches))[0])


def test_where_there_are_fewer_images_statistics_take_all():
    images = statistics_images(numbered(30), 99, seed=1)
    np.testing.assert_array_equal(np.sort(images, axis=0), numbered(30).images)
