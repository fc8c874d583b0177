"""Training images as they might have been: moved, mirrored, bent a little, in another light.

Shapes: ``N`` images of ``H`` x ``W`` pixels with ``C`` colours, values in [0, 1].
"""

import dataclasses
import math

import tensorflow as tf

__all__ = ["Augmentation"]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random views of images, one for each image, that depend on a seed and the number of the batch alone.

    One affine map per image does all that moves pixels in one pass: a crop out of the padded image (a shift by whole
    pixels, black behind it), a flip, and for ``warp_share`` of the images a rotation, a shear and a scale about the
    centre. The others are not interpolated, so they stay as sharp as the images of an evaluation. Then the light:
    brightness, contrast (away from the image's mean grey) and saturation (away from each pixel's own grey), each times
    a factor from ``1 - x`` to ``1 + x``, clipped to [0, 1]. All factors are uniform.

    A batch of 128 images of 32x32x3 takes about 10 ms of one processor.

    Attributes:
        shift: largest shift in both directions, pixels.
        mirror: whether every other image, at random, is flipped left to right.
        warp_share: fraction of the images that are rotated, sheared and scaled.
        rotation: largest angle, degrees.
        shear: largest angle by which columns lean, degrees.
        scale: largest change of the size: factors from ``1 - scale`` to ``1 + scale``.
        jitter: largest change of brightness, contrast and saturation.
        calm_from: number of the batch from which on images are shifted and flipped alone, or None: the end of a short
            training sees images like those of an evaluation.

    Source: torchvision's RandomCrop, RandomHorizontalFlip, RandomRotation, RandomAffine and ColorJitter, with which the
        founding ResNet-20 was trained.

    Example:
        >>> images = tf.ones((8, 32, 32, 3))
        >>> Augmentation(shift=4, jitter=0.2)(images, seed=0, number=0).shape.as_list()
        [8, 32, 32, 3]
    """

    shift: int = 0
    mirror: bool = False
    warp_share: float = 0.0
    rotation: float = 0.0
    shear: float = 0.0
    scale: float = 0.0
    jitter: float = 0.0
    calm_from: int | None = None

    def __call__(self, images, seed, number):
        """The views of one batch.

        Args:
            images: float32 tensor ``(N, H, W, C)``.
            seed: int.
            number: of the batch, an int or an int64 tensor: the same one gives the same views.

        Returns:
            float32 tensor ``(N, H, W, C)``.
        """
        draws = tf.unstack(tf.random.stateless_uniform((10, images.shape[0]), (seed, number)))
        strong = 1.0 if self.calm_from is None else tf.cast(number < self.calm_from, tf.float32)
        if self.shift or self.mirror or self.warp_share:
            draws[3] = strong * tf.cast(draws[3] < self.warp_share, tf.float32)
            images = self._move(images, *draws[:7])
        return self._light(images, strong * self.jitter, *draws[7:]) if self.jitter else images

    def _move(self, images, right, down, flip, warp, turn, lean, size):
        height, width = images.shape[1:3]
        right, down = (tf.floor((2 * self.shift + 1) * draw) - self.shift for draw in (right, down))
        side = tf.where(flip < 0.5, -1.0, 1.0) if self.mirror else 1.0
        angle = warp * _between(-self.rotation, self.rotation, turn) * math.pi / 180
        lean = tf.tan(warp * _between(-self.shear, self.shear, lean) * math.pi / 180)
        size = 1 + warp * _between(-self.scale, self.scale, size)
        # The kernel wants the map from the output to the input: here linear about the centre, then the shift.
        cosine, sine = tf.cos(angle) / size, tf.sin(angle) / size
        a, b = side * cosine, side * (cosine * lean - sine)
        c, d = sine, sine * lean + cosine
        x, y, zero = (width - 1) / 2, (height - 1) / 2, tf.zeros_like(a)
        maps = tf.stack([a, b, x - a * x - b * y + right, c, d, y - c * x - d * y + down, zero, zero], axis=1)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=maps,
            output_shape=(height, width),
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
            fill_value=0.0,
        )

    def _light(self, images, jitter, *draws):
        brightness, contrast, saturation = (
            _between(1 - jitter, 1 + jitter, draw)[:, None, None, None] for draw in draws
        )
        images = brightness * images
        grey = tf.reduce_mean(images, axis=-1, keepdims=True)
        mean = tf.reduce_mean(grey, axis=(1, 2), keepdims=True)
        images = contrast * (grey + saturation * (images - grey)) + (1 - contrast) * mean
        return tf.clip_by_value(images, 0.0, 1.0)


def _between(low, high, draw):
    return low + (high - low) * draw
