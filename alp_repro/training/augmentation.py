"""Training augmentation of Tiny ImageNet, stateless and vectorised: one graph for a whole batch.

Protocol, "training augmentation": random crop of 50–100 % of the area, aspect ratio 0.75–1.33, at
least half of the image covered; random horizontal flip; random saturation 0.5–2.0; TensorFlow 1's
bicubic resize to 64×64, whose overshoot at edges is not clipped.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from alp_repro import stateless_random

_AREA = (0.5, 1.0)
_ASPECT_RATIO = (0.75, 1.33)
_SATURATION = (0.5, 2.0)
# TensorFlow 1's cubic, as in tf.compat.v1.image.resize_bicubic: its parameter, and the number of
# steps between two pixels in its table of weights.
_CUBIC_A = -0.75
_CUBIC_STEPS = 1024.0


class Crops(NamedTuple):
    """Boxes in whole pixels, one per image: float32 [b] each."""

    top: tf.Tensor
    left: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def augment_batch(images: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Augment training images: saturation, flip, crop, bicubic resize to the same size.

    `images` float32 [b, size, size, 3] in [0, 1], `seed` an integer tensor [2]; returns the same
    shape; the cubic overshoots [0, 1] at edges. The result depends only on (images, seed).
    Compiles under XLA.
    """
    batch, size = tf.shape(images)[0], images.shape[1]
    crop_seed, saturation_seed, flip_seed = stateless_random.split(seed, 3)
    factor = _uniform([batch, 1, 1], saturation_seed, _SATURATION)
    flip = stateless_random.uniform([batch, 1, 1, 1], flip_seed) < 0.5
    saturated = adjust_saturation(images, factor)
    # Before the resize, which does not commute with a flip.
    flipped = tf.where(flip, tf.reverse(saturated, axis=[2]), saturated)
    return crop_and_resize(flipped, random_crops(batch, size, seed=crop_seed))


def random_crops(batch: tf.Tensor | int, size: int, *, seed: tf.Tensor) -> Crops:
    """Draw a crop for each of `batch` square images of `size` pixels.

    Sizes are drawn as `tf.image.sample_distorted_bounding_box` draws them when the whole image is
    the object: an aspect ratio (width over height), then a height in whole pixels among those
    whose area fits. The position is uniform over all places inside the image. That op itself
    works on one image at a time and has no kernel for a GPU.
    """
    aspect_seed, height_seed, top_seed, left_seed = stateless_random.split(seed, 4)
    aspect = _uniform([batch], aspect_seed, _ASPECT_RATIO)
    full = float(size)
    min_area, max_area = _AREA[0] * full * full, _AREA[1] * full * full
    lowest = tf.round(tf.sqrt(min_area / aspect))
    highest = tf.minimum(tf.round(tf.sqrt(max_area / aspect)), full)
    # A wide crop is bounded by the image's width.
    highest = tf.minimum(highest, tf.math.floor((full + 0.4999) / aspect))
    height = lowest + _integer_below([batch], highest - lowest + 1.0, seed=height_seed)
    width = tf.round(height * aspect)
    # Rounding may have taken a crop just below the smallest area: one more row mends that.
    height = tf.where(height * width < min_area, tf.minimum(height + 1.0, full), height)
    width = tf.minimum(tf.round(height * aspect), full)
    top = _integer_below([batch], full - height + 1.0, seed=top_seed)
    left = _integer_below([batch], full - width + 1.0, seed=left_seed)
    return Crops(top, left, height, width)


def crop_and_resize(images: tf.Tensor, crops: Crops) -> tf.Tensor:
    """Crop each image and resize the crop bicubically to the size of the image.

    Equals `tf.compat.v1.image.resize_bicubic(crop, (size, size))` for each image. A resize is
    linear and separable, so it is two small matrix products for each image, and a batch of them is
    one batched product.
    """
    size = images.shape[1]
    rows = _resize_matrix(crops.top, crops.height, size)
    columns = _resize_matrix(crops.left, crops.width, size)
    resized = tf.einsum("bij,bjkc->bikc", rows, images)
    return tf.einsum("blk,bikc->bilc", columns, resized)


def adjust_saturation(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Adjust the saturation by a factor for each image, broadcast from [b, 1, 1]."""
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(images), axis=-1)
    saturation = tf.clip_by_value(saturation * factor, 0.0, 1.0)
    return tf.image.hsv_to_rgb(tf.stack([hue, saturation, value], axis=-1))


def _resize_matrix(start: tf.Tensor, length: tf.Tensor, size: int) -> tf.Tensor:
    """Return weights [b, out, in] that resize pixels start … start + length − 1 to `size`."""
    start, length = start[:, tf.newaxis, tf.newaxis], length[:, tf.newaxis, tf.newaxis]
    out = tf.range(size, dtype=tf.float32)[tf.newaxis, :, tf.newaxis]
    pixel = tf.range(size, dtype=tf.float32)[tf.newaxis, tf.newaxis, :]
    place = out * (length / float(size))
    before = tf.math.floor(place)
    beyond = tf.round((place - before) * _CUBIC_STEPS) / _CUBIC_STEPS
    weights = tf.zeros_like(place * pixel)
    for tap in (-1.0, 0.0, 1.0, 2.0):
        # A pixel outside the crop is the nearest inside it.
        taken = start + tf.clip_by_value(before + tap, 0.0, length - 1.0)
        weights += tf.where(pixel == taken, _cubic(tf.abs(tap - beyond)), 0.0)
    return weights


def _cubic(distance: tf.Tensor) -> tf.Tensor:
    a, x = _CUBIC_A, distance
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return tf.where(x <= 1.0, near, tf.where(x < 2.0, far, 0.0))


def _uniform(
    shape: list[tf.Tensor | int], seed: tf.Tensor, bounds: tuple[float, float]
) -> tf.Tensor:
    return stateless_random.uniform(shape, seed, low=bounds[0], high=bounds[1])


def _integer_below(shape: list[tf.Tensor | int], bound: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Draw uniform whole numbers 0 … bound − 1, as float32."""
    draw = tf.math.floor(stateless_random.uniform(shape, seed) * bound)
    return tf.minimum(draw, bound - 1.0)  # float32 rounding may reach the bound itself
