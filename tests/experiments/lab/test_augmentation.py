import itertools

import numpy as np
import pytest
import tensorflow as tf
from lab import datasets
from lab.batches import training_batches
from lab.image_training import Augmentation


def noise(count=64, side=9):
    return np.random.default_rng(0).random((count, side, side, 3), np.float32)


def views(images, seed=0, number=0, **settings):
    return Augmentation(**settings)(tf.constant(images), seed, number).numpy()


def test_nothing_asked_nothing_changed():
    images = noise(8)
    np.testing.assert_array_equal(views(images), images)


@pytest.mark.slow
def test_shifts_and_flips_are_exact_and_each_image_has_its_own():
    images, shift = noise(), 2
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    seen = set()
    for number in range(4):
        for image, view in zip(padded, views(images, number=number, shift=shift, mirror=True), strict=True):
            offsets = itertools.product(range(2 * shift + 1), repeat=2)
            crops = {(y, x, s): image[y : y + 9, x : x + 9][:, ::s] for y, x in offsets for s in (1, -1)}
            (found,) = [place for place, crop in crops.items() if np.array_equal(crop, view)]
            seen.add(found)
    assert len(seen) == 50  # each of the places, straight and mirrored, in 256 draws


def test_without_mirror_nothing_is_flipped():
    image = np.zeros((64, 5, 5, 3), np.float32)
    image[:, :, :2] = 1
    assert (views(image, shift=0, warp_share=1.0)[:, :, :2] == 1).all()


def test_the_views_depend_on_seed_and_number_alone():
    settings = {
        "shift": 1,
        "mirror": True,
        "warp_share": 0.5,
        "rotation": 9.0,
        "shear": 9.0,
        "scale": 0.1,
        "jitter": 0.1,
    }
    images = noise()
    first = views(images, 3, 7, **settings)
    np.testing.assert_array_equal(views(images, 3, tf.constant(7, tf.int64), **settings), first)
    for other in ((4, 7), (3, 8)):
        assert not np.allclose(views(images, *other, **settings), first)


def test_only_their_share_of_the_images_is_warped():
    images = noise(400)
    same = np.isclose(views(images, warp_share=0.25, rotation=30.0), images, atol=1e-6).all(axis=(1, 2, 3))
    assert 0.67 < same.mean() < 0.83


def disc(side=33):
    """A disc right of the centre, as the image of a point."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.repeat(np.exp(-((x - 10) ** 2 + y**2) / 6)[None, ..., None], 200, axis=0).astype(np.float32)


def centres(images):
    """Where the mass of each image is, in pixels right of and below the centre."""
    side = images.shape[1]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    mass = images[..., 0] / images[..., 0].sum(axis=(1, 2), keepdims=True)
    return np.stack([(mass * x).sum(axis=(1, 2)), (mass * y).sum(axis=(1, 2))], axis=1)


def test_a_rotation_turns_about_the_centre_by_up_to_its_angle():
    x, y = centres(views(disc(), warp_share=1.0, rotation=20.0)).T
    np.testing.assert_allclose(np.hypot(x, y), 10, atol=0.1)
    angles = np.degrees(np.arctan2(y, x))
    assert -20.2 < angles.min() < -17 and 17 < angles.max() < 20.2


def test_a_scale_moves_along_the_ray_by_up_to_its_fraction():
    x, y = centres(views(disc(), warp_share=1.0, scale=0.2)).T
    np.testing.assert_allclose(y, 0, atol=0.05)
    assert 7.9 < x.min() < 8.4 and 11.6 < x.max() < 12.1


def test_a_shear_leans_the_columns_and_leaves_the_rows():
    upright = disc().transpose(0, 2, 1, 3)  # the disc below the centre
    x, y = centres(views(upright, warp_share=1.0, shear=20.0)).T
    np.testing.assert_allclose(y, 10, atol=0.1)
    reach = 10 * np.tan(np.radians(20))
    assert -reach - 0.1 < x.min() < -0.8 * reach and 0.8 * reach < x.max() < reach + 0.1


def test_jitter_stays_in_range_and_changes_brightness_contrast_and_saturation():
    images = noise(200)
    changed = views(images, jitter=0.2)
    assert changed.min() >= 0 and changed.max() <= 1
    grey = np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)
    assert np.ptp(views(grey, jitter=0.2), axis=-1).max() < 1e-5  # grey has no saturation
    flat = np.full((200, 4, 4, 3), 0.5, np.float32)
    levels = views(flat, jitter=0.2)
    assert np.ptp(levels, axis=(1, 2)).max() < 1e-6  # and an even area no contrast
    assert 0.4 <= levels.min() < 0.42 and 0.58 < levels.max() <= 0.6


def test_batches_take_an_augmentation_with_their_seed_and_number():
    images = noise(12)
    split = datasets.Split(images, np.arange(12))
    augmentation = Augmentation(shift=2, jitter=0.3)
    batches, steps = training_batches(split, 4, 5, augmentation=augmentation)
    assert steps == 3
    whole = list(batches.take(6).as_numpy_iterator())
    for number, (views_of, labels) in enumerate(whole):
        expected = augmentation(tf.constant(images[labels]), 5, number).numpy()
        np.testing.assert_allclose(views_of, expected, rtol=0, atol=1e-6)
    later, _ = training_batches(split, 4, 5, skip_epochs=1, augmentation=augmentation)
    for (one, _), (other, _) in zip(whole[3:], later.take(3).as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("replaced", [{"shift": 1}, {"mirror": True}, {"soft_labels": np.zeros((1, 1, 12, 2))}])
def test_an_augmentation_takes_the_place_of_the_other_changes(replaced):
    split = datasets.Split(noise(12), np.arange(12))
    with pytest.raises(ValueError, match="in place of shift, mirror and soft_labels"):
        training_batches(split, 4, 0, augmentation=Augmentation(), **replaced)


def test_calm_batches_are_shifted_and_mirrored_alone():
    images = np.random.default_rng(0).random((6, 8, 8, 3)).astype(np.float32)
    gentle = {"shift": 2, "mirror": True}
    strong = {**gentle, "warp_share": 1.0, "rotation": 20.0, "shear": 10.0, "scale": 0.2, "jitter": 0.3}
    before, after = (views(images, number=number, calm_from=5, **strong) for number in (4, 5))
    np.testing.assert_allclose(before, views(images, number=4, **strong), atol=1e-6)
    np.testing.assert_allclose(after, views(images, number=5, **gentle), atol=1e-6)
