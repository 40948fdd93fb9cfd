"""The PGD loop, and the crafting of one restart of PGD or APGD.

The loop is Cleverhans' `projected_gradient_descent` step for step (`optimize_linear`, `clip_eta`)
from a given starting point and as one `tf.while_loop`, so that it compiles and resumes; a test
holds it to Cleverhans' exact bits. Everything here is on the model's input scale, [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from cleverhans.tf2.utils import clip_eta, optimize_linear

from alp_repro.attacks.apgd import auto_pgd
from alp_repro.attacks.draws import NoiseFunction
from alp_repro.attacks.losses import attack_loss, finite_gradient
from alp_repro.attacks.settings import Attack, Loss, StepSizes
from alp_repro.errors import InputError
from alp_repro.model_copies import LogitsFunction


def loss_and_gradient(
    logits: LogitsFunction, labels: tf.Tensor, *, loss: Loss, targets: tf.Tensor | None = None
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """A function of images: their logits, each one's attack loss, the gradient of their sum.

    In a graph it stays a function of its own. Where it is inlined in a loop, TensorFlow's oneDNN
    pass may meet a max-pool's gradient before the max-pool, by the memory addresses of the loop's
    edges, and then leaves it to a far slower kernel: in two processes of three, seen with
    TensorFlow 2.21 (docs/performance.md).

    Args:
      logits: the crafting model.
      labels: int [batch].
      loss: see `Attack`.
      targets: int [batch] for a targeted attack, -1: this item has no target.
    """

    def value_and_gradient(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            outputs = logits(points)
            values = attack_loss(loss, labels=labels, logits=outputs, targets=targets)
        return outputs, values, tape.gradient(values, points)

    if not tf.inside_function():
        return value_and_gradient
    return tf.function(
        value_and_gradient, experimental_attributes={"_noinline": True}, autograph=False
    )


def pgd_step(
    points: tf.Tensor,
    gradient: tf.Tensor,
    *,
    images: tf.Tensor,
    eps: tf.Tensor | float,
    step_size: tf.Tensor | float,
) -> tf.Tensor:
    """One sign step of Cleverhans' `projected_gradient_descent`, back into the ball and [0, 1].

    Args:
      points, gradient, images: float32 of one shape; the ball lies around `images`.
      eps, step_size: input scale.
    """
    points = tf.clip_by_value(points + optimize_linear(gradient, step_size, np.inf), 0.0, 1.0)
    return tf.clip_by_value(images + clip_eta(points - images, np.inf, eps), 0.0, 1.0)


class Crafted(NamedTuple):
    """What a run of an attack ends with.

    adversarial: float32 like the images; nonfinite_gradients: int32 [batch], steps whose gradient
    had entries that are not finite, which counted as 0.
    """

    adversarial: tf.Tensor
    nonfinite_gradients: tf.Tensor


class Draws(NamedTuple):
    """What an attack drew or chose for a batch; see `alp_repro.attacks.draws`.

    starts: like the images, inside the ball; targets: int [batch], -1: this item has none, or None;
    noise: needed by an attack with `gradient_noise`; plain_items: bool [batch], items that take
    neither the attack's noise nor its momentum, and steps of its `plain_step`, or None.
    """

    starts: tf.Tensor
    targets: tf.Tensor | None = None
    noise: NoiseFunction | None = None
    plain_items: tf.Tensor | None = None


def craft(
    logits: LogitsFunction,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    attack: Attack,
    starts: tf.Tensor,
    targets: tf.Tensor | None = None,
    noise: NoiseFunction | None = None,
    plain_items: tf.Tensor | None = None,
    sizes: StepSizes | None = None,
) -> tf.Tensor:
    """The images of `run_attack`, from what was drawn."""
    draws = Draws(starts, targets, noise, plain_items)
    return run_attack(logits, images, labels, attack=attack, draws=draws, sizes=sizes).adversarial


def run_attack(
    logits: LogitsFunction,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    attack: Attack,
    draws: Draws,
    sizes: StepSizes | None = None,
) -> Crafted:
    """One restart of PGD or APGD, with no gradient through the crafting.

    Args:
      logits: the crafting model.
      images: float32 [batch, height, width, channels] in [0, 1].
      labels: int [batch].
      attack: settings; `method`, `engine` and `random_start` beyond these are the caller's.
      draws: where each item starts and aims.
      sizes: taken for the attack's own eps, eps_iter and nb_iter (APGD, whose checkpoints are
        fixed in the graph, keeps its own nb_iter).

    Returns:
      Images inside the ball up to rounding and inside [0, 1].

    Raises:
      InputError: the attack has `gradient_noise` and no noise is given.
    """
    sizes = sizes or StepSizes(attack.eps, attack.eps_iter, attack.nb_iter)
    if attack.method == "apgd":
        result = auto_pgd(
            loss_and_gradient(logits, labels, loss=attack.loss, targets=draws.targets),
            images,
            draws.starts,
            eps=sizes.eps,
            nb_iter=attack.nb_iter,
            labels=labels,
        )
        return Crafted(tf.stop_gradient(result.adversarial), result.nonfinite_gradients)
    run = PgdRun(logits, images, labels, attack, draws, sizes)
    return run.result(run.advance(run.first(), sizes.nb_iter))


class Iterate(NamedTuple):
    """Where a run of PGD is. best: with success=any, the points of the largest margin and it."""

    iteration: tf.Tensor
    points: tf.Tensor
    direction: tf.Tensor
    nonfinite_gradients: tf.Tensor
    best: tuple[tf.Tensor, ...]


class PgdRun:
    """One restart of PGD on a batch, which can be advanced piece by piece."""

    def __init__(
        self,
        logits: LogitsFunction,
        images: tf.Tensor,
        labels: tf.Tensor,
        attack: Attack,
        draws: Draws,
        sizes: StepSizes,
    ) -> None:
        if attack.gradient_noise and draws.noise is None:
            raise InputError(
                "attack gradient_noise: an evaluation knows it, a training attack does not"
            )
        self._logits, self._images, self._labels = logits, images, labels
        self._attack, self._draws, self._sizes = attack, draws, sizes
        self._iterations = tf.convert_to_tensor(sizes.nb_iter)
        self._momentum = self._of_item(attack.momentum, plain=0.0)
        self._step_size = self._of_item(sizes.eps_iter, plain=sizes.eps_iter * attack.plain_step)
        self._value_and_gradient = loss_and_gradient(
            logits, labels, loss=attack.loss, targets=draws.targets
        )

    def first(self) -> Iterate:
        """Before the first step."""
        starts, items = self._draws.starts, tf.shape(self._labels)
        best = (starts, tf.fill(items, -np.inf)) if self._attack.success == "any" else ()
        count = tf.zeros(items, tf.int32)
        return Iterate(tf.constant(0), starts, tf.zeros_like(starts), count, best)

    def advance(self, iterate: Iterate, until: tf.Tensor | int) -> Iterate:
        """Steps up to this number of iterations."""
        reached = tf.while_loop(
            lambda *state: state[0] < until,
            lambda *state: tuple(self._step(Iterate(*state))),
            tuple(iterate),
            parallel_iterations=1,
        )
        return Iterate(*reached)

    def result(self, iterate: Iterate) -> Crafted:
        """The images that are judged."""
        points = iterate.points
        if self._attack.success == "any":
            points = self._better(iterate.best, points, self._logits(points))[0]
        return Crafted(tf.stop_gradient(points), iterate.nonfinite_gradients)

    def _step(self, iterate: Iterate) -> Iterate:
        attack, i = self._attack, iterate.iteration
        outputs, _, gradient = self._value_and_gradient(self._gradient_points(iterate))
        gradient, nonfinite = finite_gradient(gradient)
        if attack.momentum:
            gradient = self._momentum * iterate.direction + gradient
        size = self._step_size
        if attack.step_schedule == "linear":
            size = size * (1.0 - self._share_done(i))
        points = pgd_step(
            iterate.points, gradient, images=self._images, eps=self._sizes.eps, step_size=size
        )
        best = iterate.best
        if attack.success == "any":
            best = self._better(best, iterate.points, outputs)
        count = iterate.nonfinite_gradients + tf.cast(nonfinite, tf.int32)
        return Iterate(i + 1, points, gradient, count, best)

    def _gradient_points(self, iterate: Iterate) -> tf.Tensor:
        """Where the gradient is taken: at the iterate, or with the noise that the attack adds."""
        noise, half_width = self._draws.noise, self._attack.gradient_noise
        if noise is None or not half_width:
            return iterate.points
        i = iterate.iteration
        width = half_width * tf.maximum(0.0, 1.0 - 2.0 * self._share_done(i))
        return iterate.points + self._of_item(width, plain=0.0) * noise(i)

    def _better(
        self, best: tuple[tf.Tensor, ...], points: tf.Tensor, outputs: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        margin = attack_loss("margin", labels=self._labels, logits=outputs)
        larger = margin > best[1]
        chosen = tf.where(larger[:, None, None, None], points, best[0])
        return chosen, tf.where(larger, margin, best[1])

    def _share_done(self, i: tf.Tensor) -> tf.Tensor:
        return tf.cast(i, tf.float32) / tf.cast(self._iterations, tf.float32)

    def _of_item(self, value: tf.Tensor | float, *, plain: tf.Tensor | float) -> tf.Tensor | float:
        """The value, or `plain` where an item is one of the plain ones; broadcast over pixels."""
        items = self._draws.plain_items
        return value if items is None else tf.where(items, plain, value)[:, None, None, None]
