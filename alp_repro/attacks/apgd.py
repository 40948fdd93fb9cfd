"""Auto-PGD in the L∞ ball: Algorithm 1 of Croce & Hein 2020 as one ``tf.while_loop``.

"Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
ICML 2020, section 3. Sign steps with momentum start at 2ε; at checkpoints that grow denser, each
image whose loss has stopped rising halves its step and goes back to its best point.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from alp_repro.attacks.ascent import GradientAttack
from alp_repro.attacks.base import ALWAYS_STORED, STEPS, Cost, Crafted
from alp_repro.attacks.draws import Draws
from alp_repro.attacks.losses import (
    finite_gradient,
    loss_and_gradient,
    misclassified,
    per_image,
)

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.models.copies import LogitsFunction
else:
    from alp_repro.lazy_tensorflow import tf

_MOMENTUM = 0.75  # α in Algorithm 1: the share of the new step
_RHO = 0.75  # Condition 1: the share of steps that must raise the loss

ValueAndGradient = Callable[["tf.Tensor"], tuple["tf.Tensor", "tf.Tensor", "tf.Tensor"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Auto-PGD (Croce & Hein 2020): momentum, and steps from 2ε that halve by themselves.

    Attributes:
      nb_iter: steps of one restart.

    Examples:
      >>> print(alp_repro.APGD(eps=8 / 255, loss="dlr", target="each", restarts=9))
      apgd eps=8 n=100 r=9 loss=dlr target=each
    """

    nb_iter: int = dataclasses.field(default=100, metadata=STEPS)

    name: ClassVar[str] = "apgd"

    @property
    def cost(self) -> Cost:
        """One gradient for each step."""
        return Cost(gradients=self.nb_iter)

    def extra_stored_settings(self) -> Mapping[str, Any]:
        """Return the settings that every stored result has, with `eps_iter` for the first step."""
        return {**ALWAYS_STORED, "eps_iter": 2 * self.eps}

    def ascend(
        self, logits: LogitsFunction, images: tf.Tensor, labels: tf.Tensor, draws: Draws
    ) -> Crafted:
        """Return the end of one run; see `GradientAttack.ascend`."""
        result = auto_pgd(
            loss_and_gradient(logits, labels, loss=self.loss, targets=draws.targets),
            images,
            draws.starts,
            eps=self.eps,
            nb_iter=self.nb_iter,
            labels=labels,
        )
        return Crafted(tf.stop_gradient(result.adversarial), result.nonfinite_gradients)


class ApgdResult(NamedTuple):
    """The result of a run of ``auto_pgd``, for each image of the batch.

    best_images float32 like the images and best_loss float32 ``[b]``: the point of the highest
    loss among all that were visited, the start included. broken bool ``[b]``: some visited point
    was misclassified; adversarial: the first such point, or the best point where there was none.
    steps float32 ``[b]``: the step size at the end. nonfinite_gradients int32 ``[b]``: visits whose
    gradient had entries that are not finite; they count as 0.
    """

    best_images: tf.Tensor
    best_loss: tf.Tensor
    adversarial: tf.Tensor
    broken: tf.Tensor
    steps: tf.Tensor
    nonfinite_gradients: tf.Tensor


class _State(NamedTuple):
    iteration: tf.Tensor  # points visited after the start
    images: tf.Tensor
    previous: tf.Tensor
    loss: tf.Tensor
    gradient: tf.Tensor
    best_images: tf.Tensor
    best_loss: tf.Tensor
    best_gradient: tf.Tensor
    adversarial: tf.Tensor
    broken: tf.Tensor
    steps: tf.Tensor
    rises: tf.Tensor  # steps that raised the loss since the last checkpoint
    halved: tf.Tensor  # whether the last checkpoint halved the step
    checkpoint_loss: tf.Tensor  # the best loss at the last checkpoint
    nonfinite_gradients: tf.Tensor


def checkpoints(nb_iter: int) -> list[int]:
    """Return the iterations at which step sizes are reviewed, 0 first: ``ceil(p_j · nb_iter)``.

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), up to 1. Croce & Hein
    2020, section 3.2. Computed in whole hundredths, so that rounding cannot move a checkpoint.
    """
    percent, gap = 22, 22
    found = {0}
    while percent <= 100:
        found.add(-(-percent * nb_iter // 100))
        gap = max(gap - 3, 6)
        percent += gap
    return sorted(found)


def linf_bounds(images: tf.Tensor, *, eps: float | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the lowest and highest pixels in both the ε-ball and [0, 1], to the last bit.

    Any ``x`` with ``lower <= x <= upper`` has ``abs(x - images) <= eps`` in float32 arithmetic:
    where ``images ± eps`` was rounded outwards, the bound is the next number inwards. images:
    float32 in [0, 1]; eps on the model's input scale; returns two tensors like images.
    """
    lower, upper = images - eps, images + eps
    lower = tf.where(images - lower > eps, tf.math.nextafter(lower, images), lower)
    upper = tf.where(upper - images > eps, tf.math.nextafter(upper, images), upper)
    return tf.maximum(lower, 0.0), tf.minimum(upper, 1.0)


def auto_pgd(
    value_and_gradient: ValueAndGradient,
    images: tf.Tensor,
    starts: tf.Tensor,
    *,
    eps: float | tf.Tensor,
    nb_iter: int,
    labels: tf.Tensor | None = None,
) -> ApgdResult:
    """Maximise a loss over the ε-ball around each image with Auto-PGD, ``nb_iter`` steps.

    value_and_gradient: maps points like ``images`` to ``(logits [b, k], loss [b], gradient like
    images)``; it is called ``nb_iter + 1`` times, the last time for its logits and loss alone, and
    must treat the images of a batch independently. images: float32 ``[b, ...]``; starts: like
    images, projected first; eps: on the model's input scale, a scalar tensor may be given; labels:
    true classes, int ``[b]``, without which nothing counts as broken.

    Each checkpoint is reviewed as soon as its own point is known, which is the last one that
    Condition 1 counts; the momentum after a return to the best point is the difference to the
    point before, as Algorithm 1 has it.
    """
    lower, upper = linf_bounds(images, eps=eps)
    windows = _windows(nb_iter)

    def body(state: _State) -> tuple[_State]:
        points = _next_points(state, lower, upper)
        state = _visited(state, points, value_and_gradient(points), labels)
        return (_reviewed(state, tf.gather(windows, state.iteration)),)

    starts = tf.clip_by_value(starts, lower, upper)
    first = _first_state(starts, value_and_gradient(starts), labels, eps)
    (last,) = tf.while_loop(lambda state: state.iteration < nb_iter, body, (first,))
    return ApgdResult(
        best_images=last.best_images,
        best_loss=last.best_loss,
        adversarial=tf.where(per_image(last.broken, images), last.adversarial, last.best_images),
        broken=last.broken,
        steps=last.steps,
        nonfinite_gradients=last.nonfinite_gradients,
    )


def _windows(nb_iter: int) -> tf.Tensor:
    """Return the steps since the previous checkpoint at each checkpoint, and 0 in between."""
    windows = [0] * (nb_iter + 1)
    reviewed = checkpoints(nb_iter)
    for before, now in itertools.pairwise(reviewed):
        windows[now] = now - before
    return tf.constant(windows, tf.int32)


def _first_state(
    starts: tf.Tensor,
    visit: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    labels: tf.Tensor | None,
    eps: float | tf.Tensor,
) -> _State:
    logits, loss, gradient, nonfinite = _made_finite(*visit)
    return _State(
        iteration=tf.constant(0),
        images=starts,
        previous=starts,
        loss=loss,
        gradient=gradient,
        best_images=starts,
        best_loss=loss,
        best_gradient=gradient,
        adversarial=starts,
        broken=_misclassified(logits, labels),
        steps=tf.fill(tf.shape(loss), tf.cast(2.0 * eps, tf.float32)),
        rises=tf.zeros_like(loss, tf.int32),
        halved=tf.zeros_like(loss, tf.bool),
        checkpoint_loss=loss,
        nonfinite_gradients=nonfinite,
    )


def _made_finite(
    logits: tf.Tensor, loss: tf.Tensor, gradient: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the visit with a finite gradient, and whether it was not finite; a NaN loss is -∞."""
    loss = tf.cast(loss, tf.float32)
    gradient, nonfinite = finite_gradient(gradient)
    loss = tf.where(tf.math.is_nan(loss), -np.inf, loss)
    return logits, loss, gradient, tf.cast(nonfinite, tf.int32)


def _next_points(state: _State, lower: tf.Tensor, upper: tf.Tensor) -> tf.Tensor:
    """Return the next iterate of Algorithm 1; the first step has no momentum."""
    share = tf.where(state.iteration == 0, 1.0, _MOMENTUM)
    steps = per_image(state.steps, state.images)
    direction = tf.cast(tf.sign(state.gradient), tf.float32)
    target = tf.clip_by_value(state.images + steps * direction, lower, upper)
    moved = share * (target - state.images) + (1.0 - share) * (state.images - state.previous)
    return tf.clip_by_value(state.images + moved, lower, upper)


def _visited(
    state: _State,
    points: tf.Tensor,
    visit: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    labels: tf.Tensor | None,
) -> _State:
    """Return the state at the new points, with the best and the first misclassified ones so far."""
    logits, loss, gradient, nonfinite = _made_finite(*visit)
    better = loss > state.best_loss
    better_image = per_image(better, points)
    wrong = _misclassified(logits, labels)
    newly_broken = per_image(wrong & ~state.broken, points)
    return state._replace(
        iteration=state.iteration + 1,
        images=points,
        previous=state.images,
        loss=loss,
        gradient=gradient,
        best_images=tf.where(better_image, points, state.best_images),
        best_loss=tf.where(better, loss, state.best_loss),
        best_gradient=tf.where(better_image, gradient, state.best_gradient),
        adversarial=tf.where(newly_broken, points, state.adversarial),
        broken=state.broken | wrong,
        rises=state.rises + tf.cast(loss > state.loss, tf.int32),
        nonfinite_gradients=state.nonfinite_gradients + nonfinite,
    )


def _reviewed(state: _State, window: tf.Tensor) -> _State:
    """Apply Conditions 1 and 2; nothing changes where ``window`` is 0, between checkpoints."""
    at_checkpoint = window > 0
    rises_seldom = tf.cast(state.rises, tf.float32) < _RHO * tf.cast(window, tf.float32)
    stands_still = ~state.halved & (state.best_loss == state.checkpoint_loss)
    halve = at_checkpoint & (rises_seldom | stands_still)
    halve_image = per_image(halve, state.images)
    return state._replace(
        images=tf.where(halve_image, state.best_images, state.images),
        loss=tf.where(halve, state.best_loss, state.loss),
        gradient=tf.where(halve_image, state.best_gradient, state.gradient),
        steps=tf.where(halve, 0.5 * state.steps, state.steps),
        rises=tf.where(at_checkpoint, 0, state.rises),
        halved=tf.where(at_checkpoint, halve, state.halved),
        checkpoint_loss=tf.where(at_checkpoint, state.best_loss, state.checkpoint_loss),
    )


def _misclassified(logits: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
    if labels is None:
        return tf.zeros_like(logits[:, 0], tf.bool)
    return misclassified(logits, labels)
