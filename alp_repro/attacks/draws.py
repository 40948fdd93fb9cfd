"""Random starts, noise and targets of work items.

They depend only on (seed, restart, image index), not on the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from alp_repro import stateless_random

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from alp_repro.lazy_tensorflow import tf

Target = Literal["none", "random", "least_likely", "each"]
NoiseFunction = Callable[["tf.Tensor"], "tf.Tensor"]


class Draws(NamedTuple):
    """The starts, targets and noise of a batch.

    starts: like the images, inside the ball; targets: int [batch], -1 for an item without one, or
    None; noise: needed by an attack with `gradient_noise`; step_share, smoothing: float32 [batch],
    factors of an item's step size, and of its noise and momentum; None: 1.
    """

    starts: tf.Tensor
    targets: tf.Tensor | None = None
    noise: NoiseFunction | None = None
    step_share: tf.Tensor | None = None
    smoothing: tf.Tensor | None = None


def random_starts(
    images: tf.Tensor,
    *,
    image_index: tf.Tensor,
    restart: tf.Tensor,
    seed: tf.Tensor,
    eps: tf.Tensor,
) -> tf.Tensor:
    """Draw uniform points in the ε-ball, clipped to [0, 1]; each depends only on its own indices.

    Args:
      images: float32 [batch, height, width, channels].
      image_index, restart: int [batch].
      seed: int scalar below 2³¹.
      eps: float scalar, input scale.
    """
    from cleverhans.tf2.utils import clip_eta

    seeds = item_seed(seed, image_index, restart)
    words = stateless_random.bits_of_each(seeds, images.shape[1:])
    eta = eps * stateless_random.uniform_from_bits(words, low=-1.0, high=1.0)
    return tf.clip_by_value(images + clip_eta(eta, np.inf, eps), 0.0, 1.0)


def item_seed(seed: tf.Tensor, image_index: tf.Tensor, restart: tf.Tensor) -> tf.Tensor:
    """Return the stateless seeds of work items, distinct for each (seed, image, restart).

    Args:
      seed: int scalar below 2³¹.
      image_index, restart: int [batch], or scalars.

    Returns:
      int64 [batch, 2], or [2].
    """
    high = tf.cast(seed, tf.int64) * (1 << 32) + tf.cast(restart, tf.int64)
    low = tf.cast(image_index, tf.int64)
    return tf.stack([high + tf.zeros_like(low), low], axis=-1)


def item_noise(
    shape: tuple[int, ...], *, image_index: tf.Tensor, restart: tf.Tensor, seed: tf.Tensor
) -> NoiseFunction:
    """Return a function that draws new uniform noise in [-1, 1] for each step.

    The noise of an item depends only on its own indices.

    Args:
      shape: of one image.
      image_index, restart: int [batch].
      seed: int scalar below 2³¹.

    Returns:
      A function from the step, an int scalar, to float32 [batch, *shape].
    """
    seeds = item_seed(seed, image_index, restart)
    of_items = stateless_random.bits_of_each(seeds, shape)

    def noise(step: tf.Tensor) -> tf.Tensor:
        # One draw per image would take longer than the gradient. Words of an item and words of a
        # step, combined by XOR, are uniform and independent between items and between steps.
        of_step = stateless_random.bits(shape, item_seed(seed, step, tf.constant(-2)))
        words = tf.bitwise.bitwise_xor(of_items, of_step)
        return stateless_random.uniform_from_bits(words, low=-1.0, high=1.0)

    return noise


def choose_targets(
    target: Target,
    *,
    clean_logits: tf.Tensor,
    labels: tf.Tensor,
    image_index: tf.Tensor,
    restart: tf.Tensor,
    seed: tf.Tensor,
) -> tf.Tensor | None:
    """Return the target class of each item, int32 [batch], -1: none; None if untargeted.

    Args:
      target: see `GradientAttack`.
      clean_logits: float32 [batch, classes] on the clean images.
      labels, image_index, restart: int [batch].
      seed: int scalar; the random target depends only on it and the image's index.
    """
    classes = clean_logits.shape[-1]
    if target == "none":
        return None
    if target == "least_likely":
        return tf.argmin(clean_logits, axis=1, output_type=tf.int32)
    if target == "random":
        # No restart has the number -1, so the draw shares no random numbers with a starting point.
        seeds = item_seed(seed, image_index, tf.constant(-1))
        uniform = stateless_random.uniform_from_bits(stateless_random.bits_of_each(seeds, []))
        return tf.cast(uniform * classes, tf.int32)
    rank = tf.cast(restart, tf.int32) % (classes - 1)
    return tf.gather(wrong_classes(clean_logits, labels), rank, axis=1, batch_dims=1)


def wrong_classes(clean_logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return each item's wrong classes in descending order of logit, int32 [batch, k - 1].

    Args:
      clean_logits: float32 [batch, k] on the clean images.
      labels: int [batch].
    """
    classes = clean_logits.shape[-1]
    true_class = tf.one_hot(labels, classes, on_value=True, off_value=False)
    wrong_logits = tf.where(true_class, -np.inf, clean_logits)
    ranking = tf.argsort(wrong_logits, axis=1, direction="DESCENDING", stable=True)
    return ranking[:, : classes - 1]
