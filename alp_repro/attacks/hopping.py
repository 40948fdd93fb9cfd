"""Basin hopping in the L∞ ball: short climbs, each from a perturbed copy of the best point so far.

An iterated local search (Lourenço, Martin & Stützle 2003; basin hopping: Wales & Doye 1997) whose
local search is PGD on the margin. Where a network has thousands of nearly equal local maxima, each
independent restart ends in one of them; a climb that starts near a good point ends in a better one
more often than a climb from a random point.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from alp_repro.attacks.apgd import linf_bounds
from alp_repro.attacks.base import STEPS, Attack, Cost, Crafted
from alp_repro.attacks.draws import item_noise, wrong_classes
from alp_repro.attacks.losses import (
    finite_gradient,
    loss_and_gradient,
    margin,
    misclassified,
    per_image,
)

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction
else:
    from alp_repro.lazy_tensorflow import tf

_FIRST_STEP = 0.25  # of a climb, of ε; the steps fall linearly
_MOMENTUM = 0.75
_LEAST_SHAKE, _MAX_SHAKE = 0.05, 0.3  # of the pixels
_MAX_AIMED = 9  # climbs towards one class each
_LEAST_SUM = 1e-12  # keeps a gradient of zeros from being divided by zero


@dataclasses.dataclass(frozen=True, kw_only=True)
class BasinHopping(Attack):
    """Short climbs, each from a perturbed copy of the best point so far (iterated local search).

    For the images that other attacks leave close to the boundary: eight restarts of the defaults
    take 20,000 gradients.

    Attributes:
      nb_iter: gradients of one climb.
      climbs: of one restart; the first ones are aimed at a wrong class each, up to nine.

    Examples:
      >>> alp_repro.BasinHopping(eps=0.3, restarts=8).gradients
      19920
    """

    nb_iter: int = dataclasses.field(default=30, metadata=STEPS)
    climbs: int = dataclasses.field(default=83, metadata=STEPS)

    name: ClassVar[str] = "hopping"
    tensor_settings: ClassVar[tuple[str, ...]] = ("eps", "nb_iter", "climbs")

    @property
    def cost(self) -> Cost:
        """One gradient for each step of each climb."""
        return Cost(gradients=self.nb_iter * self.climbs)

    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft a batch; see `Attack.craft`."""
        found = basin_hopping(
            logits,
            items.images,
            items.labels,
            ranking=wrong_classes(items.clean_logits(items.images), items.labels),
            eps=self.eps,
            nb_iter=self.nb_iter,
            climbs=self.climbs,
            **items.random_keys,
        )
        return Crafted(tf.stop_gradient(found.adversarial), found.nonfinite_gradients)


class HoppingResult(NamedTuple):
    """The result of a run of `basin_hopping`, for each image of the batch.

    adversarial: float32 like the images, the first misclassified point, or the one of the largest
    margin where there was none; margin: float32 [batch], of that point; nonfinite_gradients: int32
    [batch], steps whose gradient had entries that are not finite; they count as 0.
    """

    adversarial: tf.Tensor
    margin: tf.Tensor
    nonfinite_gradients: tf.Tensor


class _Best(NamedTuple):
    """The best points so far."""

    points: tf.Tensor
    margin: tf.Tensor
    broken: tf.Tensor
    nonfinite_gradients: tf.Tensor


class _Climb(NamedTuple):
    step: tf.Tensor
    points: tf.Tensor
    direction: tf.Tensor


def basin_hopping(
    logits: LogitsFunction,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    ranking: tf.Tensor,
    eps: tf.Tensor | float,
    nb_iter: tf.Tensor | int,
    climbs: tf.Tensor | int,
    image_index: tf.Tensor,
    restart: tf.Tensor,
    seed: tf.Tensor,
) -> HoppingResult:
    """Climb towards each wrong class, then up the margin from perturbed copies of the best point.

    The first climbs begin at random points in the ball, each aimed at one of the first nine classes
    of `ranking`; the others have no target. A perturbation sets 5 to 30% of the pixels to a bound
    of the ball. A climb takes sign steps with momentum, whose size falls from ε/4 to 0. The search
    for an image stops at a misclassified point. Random numbers depend only on (seed, restart, image
    index).

    Args:
      logits: the crafting model; `climbs · nb_iter` gradients are taken. Must treat the images of a
        batch independently.
      images: float32 [batch, ...] in [0, 1].
      labels, image_index, restart: int [batch].
      ranking: int [batch, classes], wrong classes (`wrong_classes`).
      eps: input scale.
      nb_iter: gradients of one climb.
      climbs: including those that are aimed at a class.
      seed: int scalar below 2³¹.
    """
    lower, upper = linf_bounds(images, eps=eps)
    ranking = ranking[:, :_MAX_AIMED]
    aimed = ranking.shape[1]
    pixels = images.shape[1:].num_elements()
    noise = item_noise((pixels + 1,), image_index=image_index, restart=restart, seed=seed)

    def start(climb: tf.Tensor, best: _Best) -> tf.Tensor:
        drawn = noise(climb)
        of_pixels, of_item = tf.reshape(drawn[:, :pixels], tf.shape(images)), drawn[:, pixels]
        share = _LEAST_SHAKE + (_MAX_SHAKE - _LEAST_SHAKE) * 0.5 * (of_item + 1.0)
        shaken = tf.abs(of_pixels) < per_image(share, images)
        ends = tf.where(of_pixels > 0, upper, lower)
        anywhere = tf.clip_by_value(images + eps * of_pixels, lower, upper)
        return tf.where(climb < aimed, anywhere, tf.where(shaken, ends, best.points))

    def hop(climb: tf.Tensor, best: _Best) -> tuple[tf.Tensor, _Best]:
        aim = tf.gather(ranking, tf.minimum(climb, aimed - 1), axis=1)
        targets = tf.where(climb < aimed, aim, -1)
        value_and_gradient = loss_and_gradient(logits, labels, loss="margin", targets=targets)

        def step(state: _Climb, best: _Best) -> tuple[_Climb, _Best]:
            outputs, _, gradient = value_and_gradient(state.points)
            gradient, nonfinite = finite_gradient(gradient)
            best = _visited(best, state.points, outputs, labels, nonfinite)
            left = 1.0 - tf.cast(state.step, tf.float32) / tf.cast(nb_iter, tf.float32)
            direction = _MOMENTUM * state.direction + _of_sum_one(gradient)
            moved = state.points + _FIRST_STEP * eps * left * tf.sign(direction)
            points = tf.clip_by_value(moved, lower, upper)
            return _Climb(state.step + 1, points, direction), best

        first = _Climb(tf.constant(0), start(climb, best), tf.zeros_like(images))
        _, best = tf.while_loop(
            lambda state, _: state.step < nb_iter, step, (first, best), parallel_iterations=1
        )
        return climb + 1, best

    zeros = tf.zeros_like(labels, tf.int32)
    nothing = _Best(images, tf.fill(tf.shape(labels), -np.inf), zeros > 0, zeros)
    _, best = tf.while_loop(
        lambda climb, best: (climb < climbs) & ~tf.reduce_all(best.broken),
        hop,
        (tf.constant(0), nothing._replace(points=start(tf.constant(0), nothing))),
        parallel_iterations=1,
    )
    return HoppingResult(best.points, best.margin, best.nonfinite_gradients)


def _visited(
    best: _Best, points: tf.Tensor, outputs: tf.Tensor, labels: tf.Tensor, nonfinite: tf.Tensor
) -> _Best:
    """Return the best points after a visit, of images that are not broken yet."""
    found = margin(labels=labels, logits=outputs)
    wrong = misclassified(outputs, labels)
    better = ~best.broken & (wrong | (found > best.margin))
    return _Best(
        points=tf.where(per_image(better, points), points, best.points),
        margin=tf.where(better, found, best.margin),
        broken=best.broken | wrong,
        nonfinite_gradients=best.nonfinite_gradients + tf.cast(nonfinite & ~best.broken, tf.int32),
    )


def _of_sum_one(gradient: tf.Tensor) -> tf.Tensor:
    """Divide each gradient by its L1 norm, so that steep regions do not dominate the momentum."""
    axes = list(range(1, gradient.shape.rank))
    return gradient / (tf.reduce_sum(tf.abs(gradient), axis=axes, keepdims=True) + _LEAST_SUM)
