"""Basin hopping in the L∞ ball: short climbs, each from a shaken copy of the best point so far.

An iterated local search (Lourenço, Martin & Stützle 2003; basin hopping: Wales & Doye 1997) whose
local search is PGD on the margin. Where a network has thousands of nearly equal local maxima,
independent restarts end in one of them each; a climb that keeps most of a good point ends in a
better one more often than a climb from nowhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from alp_repro.attacks.apgd import ValueAndGradient, linf_bounds
from alp_repro.attacks.draws import item_noise
from alp_repro.attacks.losses import finite_gradient, misclassified
from alp_repro.errors import InputError

_MOMENTUM = 0.75
_LEAST_SUM = 1e-12  # keeps a gradient of zeros from being divided by zero


class HoppingResult(NamedTuple):
    """What a run of `basin_hopping` found, for each image of the batch.

    adversarial: float32 like the images, the first misclassified point, or the one of the highest
    value where there was none; value: float32 [batch], of that point; nonfinite_gradients: int32
    [batch], steps whose gradient had entries that are not finite; they count as 0.
    """

    adversarial: tf.Tensor
    value: tf.Tensor
    nonfinite_gradients: tf.Tensor


class _State(NamedTuple):
    """Between two climbs."""

    climb: tf.Tensor
    points: tf.Tensor
    value: tf.Tensor
    broken: tf.Tensor
    nonfinite_gradients: tf.Tensor


class _Climb(NamedTuple):
    step: tf.Tensor
    points: tf.Tensor
    direction: tf.Tensor
    best: tf.Tensor
    value: tf.Tensor
    broken: tf.Tensor  # `best` is misclassified
    nonfinite_gradients: tf.Tensor


def basin_hopping(
    value_and_gradient: ValueAndGradient,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    starts: tf.Tensor,
    eps: tf.Tensor | float,
    eps_iter: tf.Tensor | float,
    nb_iter: tf.Tensor | int,
    climbs: tf.Tensor | int,
    least_share: float,
    most_share: float,
    image_index: tf.Tensor,
    restart: tf.Tensor,
    seed: tf.Tensor,
) -> HoppingResult:
    """Climb from each start, then from shaken copies of the best point so far.

    Shaking sets a random share of the pixels to an end of the ball each. A climb is `nb_iter` sign
    steps with momentum, from `eps_iter` down to nothing. An image whose point is misclassified is
    left alone. What is drawn depends on (seed, restart, image index) alone.

    Args:
      value_and_gradient: maps points to (logits, value [batch], gradient like the points); asked
        `climbs · nb_iter` times. Must treat the images of a batch independently.
      images: float32 [batch, ...] in [0, 1].
      labels, image_index, restart: int [batch].
      starts: like the images, projected first.
      eps, eps_iter: input scale.
      nb_iter: gradients of one climb.
      climbs: the first one included.
      least_share, most_share: of the pixels that a shake sets; drawn evenly between them.
      seed: int scalar below 2³¹.

    Raises:
      InputError: no climb or no step.
    """
    for name, count in (("nb_iter", nb_iter), ("climbs", climbs)):
        if isinstance(count, int) and count < 1:
            raise InputError(f"basin hopping: {name} {count}; a count of 1 or more is right")
    lower, upper = linf_bounds(images, eps=eps)
    pixels = images.shape[1:].num_elements()
    noise = item_noise((pixels + 1,), image_index=image_index, restart=restart, seed=seed)

    def shaken(state: _State) -> tf.Tensor:
        drawn = noise(state.climb)
        of_pixels, of_item = drawn[:, :pixels], 0.5 * (drawn[:, pixels:] + 1.0)
        of_pixels = tf.reshape(of_pixels, tf.shape(images))
        share = _per_image(least_share + (most_share - least_share) * of_item, images)
        ends = tf.where(of_pixels > 0, upper, lower)
        moved = tf.where(tf.abs(of_pixels) < share, ends, state.points)
        return tf.where(state.climb == 0, state.points, moved)

    def step(climb: _Climb) -> tuple[_Climb]:
        logits, value, gradient = value_and_gradient(climb.points)
        gradient, nonfinite = finite_gradient(gradient)
        value = tf.where(tf.math.is_nan(value), -np.inf, tf.cast(value, tf.float32))
        wrong = misclassified(logits, labels)
        better = ~climb.broken & (wrong | (value > climb.value))
        total = tf.reduce_sum(tf.abs(gradient), axis=_pixel_axes(images), keepdims=True)
        direction = _MOMENTUM * climb.direction + gradient / (total + _LEAST_SUM)
        left = 1.0 - tf.cast(climb.step, tf.float32) / tf.cast(nb_iter, tf.float32)
        moved = climb.points + eps_iter * left * tf.sign(direction)
        return (
            _Climb(
                step=climb.step + 1,
                points=tf.clip_by_value(moved, lower, upper),
                direction=direction,
                best=tf.where(_per_image(better, images), climb.points, climb.best),
                value=tf.where(better, value, climb.value),
                broken=climb.broken | wrong,
                nonfinite_gradients=climb.nonfinite_gradients
                + tf.cast(nonfinite & ~climb.broken, tf.int32),
            ),
        )

    def hop(state: _State) -> tuple[_State]:
        first = _Climb(
            step=tf.constant(0),
            points=shaken(state),
            direction=tf.zeros_like(images),
            best=state.points,
            value=state.value,
            broken=state.broken,
            nonfinite_gradients=state.nonfinite_gradients,
        )
        (last,) = tf.while_loop(
            lambda climb: climb.step < nb_iter, step, (first,), parallel_iterations=1
        )
        return (
            _State(state.climb + 1, last.best, last.value, last.broken, last.nonfinite_gradients),
        )

    first = _State(
        climb=tf.constant(0),
        points=tf.clip_by_value(starts, lower, upper),
        value=tf.fill(tf.shape(labels), -np.inf),
        broken=tf.zeros_like(labels, tf.bool),
        nonfinite_gradients=tf.zeros_like(labels, tf.int32),
    )
    (last,) = tf.while_loop(
        lambda state: (state.climb < climbs) & ~tf.reduce_all(state.broken),
        hop,
        (first,),
        parallel_iterations=1,
    )
    return HoppingResult(last.points, last.value, last.nonfinite_gradients)


def _pixel_axes(images: tf.Tensor) -> list[int]:
    return list(range(1, images.shape.rank))


def _per_image(values: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """[batch] reshaped to broadcast over the pixels of `images`."""
    return tf.reshape(values, [-1] + [1] * (images.shape.rank - 1))
