"""The FAB attack in L∞, targeted: it looks for the closest misclassified point, not the worst one.

Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
ICML, Algorithm 1 with the boundary towards one class. A step goes to the plane on which the
linearised classifier is undecided, biased towards the image, and a little beyond; a misclassified
point is recorded if it is the closest so far, and pulled back towards the image.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from alp_repro import stateless_random
from alp_repro.attacks.apgd import ValueAndGradient
from alp_repro.attacks.base import STEPS, Attack, Cost, Crafted
from alp_repro.attacks.draws import item_seed, wrong_classes
from alp_repro.attacks.losses import finite_gradient, loss_and_gradient, margin, per_image

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction
else:
    from alp_repro.lazy_tensorflow import tf

_MAX_BIAS = 0.1  # α_max: the largest share of the step that starts at the image
_OVERSHOOT = 1.05  # η: beyond the plane
_KEPT = 0.9  # β: the share of the way from the image that a misclassified point keeps
_FINAL_STEPS = 3  # of the final search


@dataclasses.dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """The closest point beyond the boundary towards one class (Croce & Hein 2020, FAB).

    Restart r aims at the wrong class of rank r (modulo their number) of the clean prediction. The
    first of a class begins at the image, further ones at a distance of ε/2.

    Attributes:
      nb_iter: steps of one restart.

    Examples:
      >>> attack = alp_repro.FAB(eps=8 / 255, restarts=9)  # towards nine classes
      >>> attack.cost.gradients
      100
    """

    nb_iter: int = dataclasses.field(default=100, metadata=STEPS)

    name: ClassVar[str] = "fab"
    tensor_settings: ClassVar[tuple[str, ...]] = ("eps", "nb_iter")

    @property
    def cost(self) -> Cost:
        """A gradient for each step, and a query after it."""
        return Cost(gradients=self.nb_iter, queries=self.nb_iter + _FINAL_STEPS + 2)

    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft a batch; see `Attack.craft`."""
        images, labels = items.images, items.labels
        ranking = wrong_classes(items.clean_logits(images), labels)
        turn = items.restart % ranking.shape[1]
        starts = fab_starts(
            images,
            eps=self.eps,
            from_image=items.restart < ranking.shape[1],
            **items.random_keys,
        )
        targets = tf.gather(ranking, turn, axis=1, batch_dims=1)
        found = fab_attack(
            logits,
            loss_and_gradient(logits, labels, loss="margin", targets=targets),
            images,
            labels,
            starts=starts,
            nb_iter=self.nb_iter,
            enough=self.eps,
        )
        return Crafted(tf.stop_gradient(found.adversarial), found.nonfinite_gradients)


class FabResult(NamedTuple):
    """The result of a run of `fab_attack`, for each image of the batch.

    adversarial: float32 like the images, the closest misclassified point, or the last point where
    there was none; distance: float32 [batch], its L∞ distance from the image, ∞ where there was
    none; nonfinite_gradients: int32 [batch], steps whose gradient had entries that are not finite;
    they count as 0.
    """

    adversarial: tf.Tensor
    distance: tf.Tensor
    nonfinite_gradients: tf.Tensor


class _State(NamedTuple):
    iteration: tf.Tensor
    points: tf.Tensor
    closest: tf.Tensor  # misclassified, or the image itself while `distance` is ∞
    distance: tf.Tensor
    nonfinite_gradients: tf.Tensor


def fab_attack(
    logits: LogitsFunction,
    value_and_gradient: ValueAndGradient,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    starts: tf.Tensor,
    nb_iter: tf.Tensor | int,
    enough: tf.Tensor | float = 0.0,
) -> FabResult:
    """Return the closest misclassified points that `nb_iter` steps of FAB find.

    Args:
      logits: called `nb_iter` + 5 times.
      value_and_gradient: maps points to (logits, value [batch], gradient like the points), where
        the value is a target's logit minus the true one (`loss_and_gradient` of the margin with
        targets); called `nb_iter` times. Must treat the images of a batch independently.
      images: float32 [batch, ...] in [0, 1].
      labels: int [batch].
      starts: like the images; the images themselves, or `fab_starts`.
      nb_iter: steps.
      enough: the search for an image stops once a misclassified point is within this distance, on
        the model's input scale; 0: it never stops early.
    """

    def unfinished(state: _State) -> tf.Tensor:
        return (state.iteration < nb_iter) & tf.reduce_any(state.distance > enough)

    def step(state: _State) -> tuple[_State]:
        _, value, gradient = value_and_gradient(state.points)
        gradient, nonfinite = finite_gradient(gradient)
        moved = _step(state.points, images, value=value, gradient=gradient)
        wrong = margin(labels=labels, logits=logits(moved)) > 0
        distance = linf_distance(moved, images)
        closer = wrong & (distance < state.distance)
        pulled_back = images + _KEPT * (moved - images)
        new = _State(
            iteration=state.iteration + 1,
            points=tf.where(per_image(wrong, images), pulled_back, moved),
            closest=tf.where(per_image(closer, images), moved, state.closest),
            distance=tf.where(closer, distance, state.distance),
            nonfinite_gradients=state.nonfinite_gradients + tf.cast(nonfinite, tf.int32),
        )
        return (_unless(state.distance <= enough, state, new),)

    clean_margin = margin(labels=labels, logits=logits(images))
    first = _State(
        iteration=tf.constant(0),
        points=starts,
        closest=images,
        distance=tf.where(clean_margin > 0, 0.0, float("inf")),
        nonfinite_gradients=tf.zeros_like(labels, tf.int32),
    )
    (last,) = tf.while_loop(unfinished, step, (first,), parallel_iterations=1)
    found = tf.math.is_finite(last.distance)
    # A point that is close enough stays beyond the boundary, so that rounding keeps its class.
    searched = _final_search(logits, images, labels, last.closest, clean_margin)
    closest = tf.where(per_image(last.distance > enough, images), searched, last.closest)
    return FabResult(
        adversarial=tf.where(per_image(found, images), closest, last.points),
        distance=tf.where(found, linf_distance(closest, images), last.distance),
        nonfinite_gradients=last.nonfinite_gradients,
    )


def fab_starts(
    images: tf.Tensor,
    *,
    image_index: tf.Tensor,
    restart: tf.Tensor,
    seed: tf.Tensor,
    eps: tf.Tensor | float,
    from_image: tf.Tensor,
) -> tf.Tensor:
    """Return the images where `from_image` is True, else random points at distance ε/2 from them.

    The paper's first restart begins at the image and a further one within half the radius that is
    of interest; the points depend only on (seed, restart, image index).

    Args:
      images: float32 [batch, ...] in [0, 1].
      image_index, restart: int [batch].
      seed: int scalar below 2³¹.
      eps: input scale.
      from_image: bool [batch].
    """
    words = stateless_random.bits_of_each(item_seed(seed, image_index, restart), images.shape[1:])
    noise = stateless_random.uniform_from_bits(words, low=-1.0, high=1.0)
    longest = tf.reduce_max(tf.abs(noise), axis=_pixels(images), keepdims=True)
    drawn = tf.clip_by_value(images + 0.5 * eps * noise / tf.maximum(longest, 1e-6), 0.0, 1.0)
    return tf.where(per_image(from_image, images), images, drawn)


def linf_projection(points: tf.Tensor, weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Return the smallest changes in L∞ that bring linear functions to 0 inside [0, 1].

    The function of each item is `values + <weights, z - points>`. A pixel moves until it is at the
    end of the range, all others by the same length; where even the best corner does not reach 0,
    the change goes to that corner.

    Args:
      points, weights: float32 [batch, ...], the points in [0, 1].
      values: float32 [batch].

    Returns:
      Float32 like the points.
    """
    shape = [-1, points.shape[1:].num_elements()]
    flat, weights = tf.reshape(points, shape), tf.reshape(weights, shape)
    values = tf.where(tf.math.is_finite(values), values, 0.0)
    directions = -tf.sign(values)[:, None] * tf.sign(weights)
    rooms = tf.where(directions > 0, 1.0 - flat, flat)
    weights, needed = tf.abs(weights), tf.abs(values)

    # The gain, Σ |w| · min(length, room), rises and is concave in the length: Newton's method
    # converges from below, and in a few steps, since each one saturates further pixels.
    def longer(length: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        moving = rooms > length[:, None]
        gained = tf.reduce_sum(tf.where(moving, 0.0, weights * rooms), axis=1)
        slope = tf.reduce_sum(tf.where(moving, weights, 0.0), axis=1)
        reached = tf.where(slope > 0, tf.math.divide_no_nan(needed - gained, slope), 1.0)
        return tf.minimum(tf.maximum(reached, length), 1.0), length

    zero = tf.zeros_like(needed)
    length, _ = tf.while_loop(
        lambda length, before: tf.reduce_any(length > before),
        longer,
        (zero, zero - 1.0),
        parallel_iterations=1,
    )
    return tf.reshape(directions * tf.minimum(rooms, length[:, None]), tf.shape(points))


def linf_distance(points: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Return float32 [batch], the largest difference of a pixel."""
    return tf.reduce_max(tf.abs(points - images), axis=_pixels(images))


def _step(
    points: tf.Tensor, images: tf.Tensor, *, value: tf.Tensor, gradient: tf.Tensor
) -> tf.Tensor:
    """Return the next point of Algorithm 1, before it is classified."""
    at_image = value + tf.reduce_sum(gradient * (images - points), axis=_pixels(images))
    both = linf_projection(
        tf.concat([points, images], 0),
        tf.concat([gradient, gradient], 0),
        tf.concat([value, at_image], 0),
    )
    change, change_of_image = tf.split(both, 2)
    length = per_image(linf_distance(change, 0.0 * change), images)
    of_image = per_image(linf_distance(change_of_image, 0.0 * change), images)
    bias = tf.minimum(tf.math.divide_no_nan(length, length + of_image), _MAX_BIAS)
    moved = (1.0 - bias) * (points + _OVERSHOOT * change)
    moved += bias * (images + _OVERSHOOT * change_of_image)
    return tf.clip_by_value(moved, 0.0, 1.0)


def _final_search(
    logits: LogitsFunction,
    images: tf.Tensor,
    labels: tf.Tensor,
    closest: tf.Tensor,
    clean_margin: tf.Tensor,
) -> tf.Tensor:
    """Return misclassified points between `closest` and the images, where the margin is nearly 0.

    Three steps of the false position method along the line; points equal to the image stay.
    """
    inside, outside, margin_in = images, closest, clean_margin
    margin_out = margin(labels=labels, logits=logits(outside))
    for _ in range(_FINAL_STEPS):
        back = tf.math.divide_no_nan(margin_out, margin_out - margin_in)
        tried = outside + per_image(back, images) * (inside - outside)
        found = margin(labels=labels, logits=logits(tried))
        wrong = found > 0
        wrong_image = per_image(wrong, images)
        outside = tf.where(wrong_image, tried, outside)
        inside = tf.where(wrong_image, inside, tried)
        margin_out = tf.where(wrong, found, margin_out)
        margin_in = tf.where(wrong, margin_in, found)
    return outside


def _unless(finished: tf.Tensor, old: _State, new: _State) -> _State:
    """Return the new state, but the old one of finished images; the iteration always counts."""
    kept = [
        tf.where(per_image(finished, after) if after.shape.rank > 1 else finished, before, after)
        for before, after in zip(old[1:], new[1:], strict=True)
    ]
    return _State(new.iteration, *kept)


def _pixels(images: tf.Tensor) -> list[int]:
    return list(range(1, images.shape.rank))
