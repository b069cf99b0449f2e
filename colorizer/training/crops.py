"""Makes training batches from photos with `tf.data`: random crops, aged like old photos, and hints.

Every batch has one size, and batches of different sizes have about the same number of pixels.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from colorizer.data.photos import Photos
from colorizer.pixels.color import LUMINANCE_WEIGHTS, RGB_TO_CHROMA

REFERENCE_SIZE = 128  # `batch_size` counts crops of this size; a batch of larger crops has fewer.
_SIZES, _SIZE_SHARES = (96, 128, 160, 192, 224), (0.15, 0.35, 0.25, 0.15, 0.1)  # Sizes, and how often each is drawn.
_SMALL_IMAGE_SIZE = 64  # CIFAR-10 images are enlarged to this size.
_SMALL_IMAGE_SHARE = 0.1  # This share of the batches has CIFAR-10 images.
_DAMAGE_SHARE = 0.15  # Each kind of damage is done to this share of the crops.
_MAX_HINTS = 32

# What is drawn for a batch before it is made.
_PLAN = (
    tf.TensorSpec((), tf.int32),  # The size of its crops.
    tf.TensorSpec((), tf.bool),  # Whether it has CIFAR-10 images instead of crops of photos.
    tf.TensorSpec((None,), tf.int64),  # The indexes of its images or photos.
    tf.TensorSpec((None, 5), tf.float32),  # Numbers in [0, 1) for each crop: side, row, column, stretch and mirror.
    tf.TensorSpec((2,), tf.int32),  # The seed of what is done to the crops.
    tf.TensorSpec((), tf.float32),  # The share of the crops that come with hints.
)

Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Luminance float32 (N, S, S, 1), the true chroma (N, S, S, 2), and hints (N, S, S, 3): Cb, Cr and a mask."""


class CropReader:
    """Cuts crops from photos.

    Args:
        photos: where to cut crops from.
        indexes: int (N,), the photos to use.
        small_images: uint8 (M, 32, 32, 3), of which some batches consist; may be empty.
        batch_size: number of crops of 128 x 128 pixels in a batch; other sizes have as many pixels.
        mirror: whether half of the crops are mirrored left to right.
    """

    def __init__(
        self, photos: Photos, indexes: np.ndarray, small_images: np.ndarray, batch_size: int, mirror: bool = True
    ) -> None:
        self._indexes, self._batch_size, self._mirror = indexes, batch_size, mirror
        self._pixels, self._offsets = tf.constant(photos.pixels), tf.constant(photos.offsets)
        self._sides, self._small = tf.constant(photos.sizes), tf.constant(small_images)
        # AutoGraph is off because it warns with Python 3.13 and nothing here needs it.
        self._compiled_make = tf.function(self._make, _PLAN, autograph=False)

    def draw_batches(self, steps: int, seed: tuple[int, int], hinted_share: float) -> Iterator[Batch]:
        """Return an iterator over `steps` batches, which depend on the photos and these numbers alone."""
        plan = tf.data.Dataset.from_generator(lambda: self._plan(steps, seed, hinted_share), output_signature=_PLAN)
        return iter(plan.map(self._compiled_make, num_parallel_calls=2, deterministic=True).prefetch(4))

    def _plan(self, steps: int, seed: tuple[int, int], hinted_share: float) -> Iterator[tuple]:
        """Draw what `_PLAN` lists for each batch. Every photo is used once before any is used again."""
        generator = np.random.default_rng(seed)
        queue = np.zeros(0, np.int64)
        for _ in range(steps):
            use_small = len(self._small) > 0 and generator.random() < _SMALL_IMAGE_SHARE
            size = _SMALL_IMAGE_SIZE if use_small else generator.choice(_SIZES, p=_SIZE_SHARES)
            count = max(1, round(self._batch_size * (REFERENCE_SIZE / size) ** 2))
            if use_small:
                chosen = generator.integers(0, len(self._small), count)
            else:
                while len(queue) < count:
                    queue = np.concatenate([queue, generator.permutation(self._indexes)])
                chosen, queue = queue[:count], queue[count:]
            draws = generator.random((count, 5), np.float32)
            damage_seed = generator.integers(0, 2**31 - 1, 2, np.int32)
            yield np.int32(size), use_small, chosen, draws, damage_seed, np.float32(hinted_share)

    def _make(
        self,
        size: tf.Tensor,
        use_small: tf.Tensor,
        chosen: tf.Tensor,
        draws: tf.Tensor,
        seed: tf.Tensor,
        hinted_share: tf.Tensor,
    ) -> Batch:
        def cut() -> tf.Tensor:
            signature = tf.TensorSpec((None, None, 3), tf.float32)
            return tf.map_fn(lambda one: self._cut(*one, size), (chosen, draws), fn_output_signature=signature)

        def enlarge() -> tf.Tensor:
            images = tf.image.resize(tf.gather(self._small, chosen), (size, size), "bicubic")
            return tf.clip_by_value(images, 0, 255)

        images = tf.cond(use_small, enlarge, cut) / 255
        if self._mirror:
            images = tf.where(draws[:, 4, None, None, None] < 0.5, images, images[:, :, ::-1])
        luminance = tf.linalg.matmul(images, LUMINANCE_WEIGHTS[:, None])
        chroma = tf.linalg.matmul(images, RGB_TO_CHROMA)
        return _age(luminance, seed), chroma, draw_hints(chroma, seed, hinted_share)

    def _cut(self, photo: tf.Tensor, draws: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Return a random crop of a photo, resized to `size` in both directions.

        Its side is at least half of the photo's shorter side, and nearly a quarter of the crops have all of that side.
        The crop is up to 1.5 times as high as wide, or as wide as high, so its content is stretched by that much.
        """
        height, width = self._sides[photo, 0], self._sides[photo, 1]
        pixels = self._pixels[self._offsets[photo] : self._offsets[photo + 1]]
        image = tf.reshape(pixels, (height, width, 3))
        side = tf.cast(tf.minimum(height, width), tf.float32) * tf.minimum(1.0, 0.5 + 0.65 * draws[0])
        stretch = tf.exp(0.4 * (draws[3] - 0.5))
        rows = tf.maximum(tf.cast(tf.minimum(side * stretch, tf.cast(height, tf.float32)), tf.int32), 1)
        columns = tf.maximum(tf.cast(tf.minimum(side / stretch, tf.cast(width, tf.float32)), tf.int32), 1)
        top = tf.cast(draws[1] * tf.cast(height - rows, tf.float32) + 0.5, tf.int32)
        left = tf.cast(draws[2] * tf.cast(width - columns, tf.float32) + 0.5, tf.int32)
        crop = image[top : top + rows, left : left + columns]
        return tf.cond(
            tf.minimum(rows, columns) > size + size // 4,
            lambda: tf.image.resize(crop, (size, size), antialias=True),
            lambda: tf.image.resize(crop, (size, size)),
        )


def _age(luminance: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Change gamma, contrast and brightness, as prints and scans do, and damage some crops.

    Some crops are blurred, some get noise, and some are compressed as JPEG.

    Args:
        luminance: float32 (N, S, S, 1).
        seed: int32 (2,).

    Returns:
        float32 (N, S, S, 1) in [0, 1].
    """
    count = tf.shape(luminance)[0]
    draw = tf.random.stateless_uniform((8, count, 1, 1, 1), seed)
    luminance = tf.clip_by_value(luminance, 0.0, 1.0) ** (2.0 ** (0.8 * draw[0] - 0.4))
    mean = tf.reduce_mean(luminance, axis=(1, 2), keepdims=True)
    luminance = mean + (0.7 + 0.55 * draw[1]) * (luminance - mean) + 0.12 * (draw[2] - 0.5)
    kernel = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32)[:, :, None, None] / 16
    padded = tf.pad(luminance, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    luminance = tf.where(draw[3] < _DAMAGE_SHARE, tf.nn.conv2d(padded, kernel, 1, "VALID"), luminance)
    noise = tf.random.stateless_normal(tf.shape(luminance), seed + 1)
    luminance += tf.where(draw[4] < _DAMAGE_SHARE, 0.07 * draw[5], 0.0) * noise
    luminance = tf.clip_by_value(luminance, 0.0, 1.0)

    def compress(one: tuple[tf.Tensor, ...]) -> tf.Tensor:
        plane, chosen, quality = one

        def through_jpeg() -> tf.Tensor:
            quantized = tf.image.convert_image_dtype(plane, tf.uint8, saturate=True)
            damaged = tf.image.adjust_jpeg_quality(quantized, tf.cast(20 + 60 * quality, tf.int32))
            return tf.image.convert_image_dtype(damaged, tf.float32)

        return tf.ensure_shape(tf.cond(chosen < _DAMAGE_SHARE, through_jpeg, lambda: plane), (None, None, 1))

    signature = tf.TensorSpec((None, None, 1), tf.float32)
    return tf.map_fn(compress, (luminance, draw[6, :, 0, 0, 0], draw[7, :, 0, 0, 0]), fn_output_signature=signature)


def draw_hints(chroma: tf.Tensor, seed: tf.Tensor, hinted_share: tf.Tensor | float) -> tf.Tensor:
    """Reveal the mean chroma of some patches in some of the images (Zhang et al. 2017, section 3.2).

    The number of patches in an image is geometric with p = 1/8, their sides are 1 to 9 pixels for an image of 256, and
    their places are normally distributed around the centre. In 1 of 100 of the images with hints, all chroma is
    revealed.

    Args:
        chroma: float32 (N, S, S, 2).
        seed: int32 (2,).
        hinted_share: the share of the images with hints, from 0 to 1.

    Returns:
        float32 (N, S, S, 3): Cb, Cr and a mask, which is 1 where chroma is revealed; elsewhere all three are 0.
    """
    count, size = tf.shape(chroma)[0], tf.shape(chroma)[1]
    scale = tf.cast(size, tf.float32)
    draw = tf.random.stateless_uniform((4, count, _MAX_HINTS), seed + 2)
    hinted = tf.cast(draw[0, :, :1] < hinted_share, tf.float32)
    number = tf.floor(tf.math.log(draw[1, :, :1]) / np.log(7 / 8)) + 1
    exists = hinted * tf.cast(tf.range(_MAX_HINTS, dtype=tf.float32) < number, tf.float32)
    sides = tf.maximum(1.0, tf.round((0.5 + 9 * draw[2]) * scale / 256))
    centres = 0.5 + 0.25 * tf.random.stateless_normal((2, count, _MAX_HINTS), seed + 3)
    starts = tf.clip_by_value(tf.round(centres * scale - sides / 2), 0.0, scale - sides)
    places = tf.range(scale)
    rows, columns = tf.unstack(
        tf.cast((places >= starts[..., None]) & (places < (starts + sides)[..., None]), tf.float32)
    )  # Each is (N, hints, S).
    along_columns = tf.einsum("nkh,nhwc->nkwc", rows, chroma)
    means = tf.einsum("nkwc,nkw->nkc", along_columns, columns) / (sides**2)[..., None]
    values = tf.concat([means, tf.ones_like(means[..., :1])], axis=-1) * exists[..., None]
    hints = tf.einsum("nkh,nkwc->nhwc", rows, columns[..., None] * values[:, :, None])
    hints /= tf.maximum(hints[..., 2:], 1.0)  # Where patches overlap, their mean is revealed.
    everything = (hinted[:, :, None, None] * draw[3, :, :1, None, None]) > 0.99
    return tf.where(everything, tf.concat([chroma, tf.ones_like(chroma[..., :1])], axis=-1), hints)
