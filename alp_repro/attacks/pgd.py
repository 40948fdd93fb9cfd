"""The PGD loop, and the crafting of one restart of PGD or APGD.

The loop is Cleverhans' `projected_gradient_descent` step for step (`optimize_linear`, `clip_eta`)
from a given starting point and as one `tf.while_loop`, so that it compiles and resumes; a test
holds it to Cleverhans' exact bits. Everything here is on the model's input scale, [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from cleverhans.tf2.utils import clip_eta, optimize_linear

from alp_repro.attacks.apgd import auto_pgd
from alp_repro.attacks.draws import NoiseFunction
from alp_repro.attacks.losses import attack_loss
from alp_repro.attacks.settings import Attack, Loss, Sizes
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
    return tf.function(value_and_gradient, experimental_attributes={"_noinline": True})


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


def craft(
    logits: LogitsFunction,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    attack: Attack,
    starts: tf.Tensor,
    targets: tf.Tensor | None = None,
    noise: NoiseFunction | None = None,
    calm: tf.Tensor | None = None,
    sizes: Sizes | None = None,
) -> tf.Tensor:
    """Adversarial images for one restart of PGD or APGD, with no gradient through the crafting.

    Args:
      logits: the crafting model.
      images: float32 [batch, height, width, channels] in [0, 1].
      labels: int [batch].
      attack: settings; `method`, `engine` and `random_start` beyond these are the caller's.
      starts: like images, inside the ball.
      targets: int [batch] for a targeted attack.
      noise: see `item_noise`; needed by an attack with `gradient_noise`.
      calm: bool [batch], items that take neither the attack's noise nor its momentum.
      sizes: taken for the attack's own eps, eps_iter and nb_iter (APGD, whose checkpoints are
        fixed in the graph, keeps its own nb_iter).

    Returns:
      Float32 images like `images`, inside the ball up to rounding and inside [0, 1].

    Raises:
      InputError: the attack has `gradient_noise` and no noise is given.
    """
    if attack.gradient_noise and noise is None:
        raise InputError(
            "attack gradient_noise: an evaluation knows it, a training attack does not"
        )
    sizes = sizes or Sizes(attack.eps, attack.eps_iter, attack.nb_iter)
    value_and_gradient = loss_and_gradient(logits, labels, loss=attack.loss, targets=targets)
    if attack.method == "apgd":
        result = auto_pgd(
            value_and_gradient, images, starts, eps=sizes.eps, nb_iter=attack.nb_iter,
            labels=labels,
        )  # fmt: skip
        return tf.stop_gradient(result.adversarial)
    return tf.stop_gradient(
        _pgd(
            value_and_gradient, logits, images, labels, starts, attack=attack, noise=noise,
            calm=calm, sizes=sizes,
        )
    )  # fmt: skip


def _pgd(
    value_and_gradient: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    logits: LogitsFunction,
    images: tf.Tensor,
    labels: tf.Tensor,
    starts: tf.Tensor,
    *,
    attack: Attack,
    noise: NoiseFunction | None,
    calm: tf.Tensor | None,
    sizes: Sizes,
) -> tf.Tensor:
    def unless_calm(value: tf.Tensor | float) -> tf.Tensor | float:
        return value if calm is None else tf.where(calm, 0.0, value)[:, None, None, None]

    momentum = unless_calm(attack.momentum)
    iterations = tf.convert_to_tensor(sizes.nb_iter)

    def share_done(i: tf.Tensor) -> tf.Tensor:
        return tf.cast(i, tf.float32) / tf.cast(iterations, tf.float32)

    def looked_at(points: tf.Tensor, i: tf.Tensor) -> tf.Tensor:
        if noise is None or not attack.gradient_noise:
            return points
        width = attack.gradient_noise * tf.maximum(0.0, 1.0 - 2.0 * share_done(i))
        return points + unless_calm(width) * noise(i)

    def step(
        points: tf.Tensor, direction: tf.Tensor, i: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        outputs, _, gradient = value_and_gradient(looked_at(points, i))
        direction = momentum * direction + gradient if attack.momentum else gradient
        size = sizes.eps_iter
        if attack.step_schedule == "linear":
            size = size * (1.0 - share_done(i))
        points = pgd_step(points, direction, images=images, eps=sizes.eps, step_size=size)
        return outputs, points, direction

    standstill = tf.zeros_like(starts)
    if attack.success == "last":

        def advance(i: tf.Tensor, points: tf.Tensor, direction: tf.Tensor) -> tuple:
            return i + 1, *step(points, direction, i)[1:]

        return tf.while_loop(
            lambda i, *_: i < iterations, advance, (0, starts, standstill), parallel_iterations=1
        )[1]

    def better(best: tuple[tf.Tensor, tf.Tensor], points: tf.Tensor, outputs: tf.Tensor) -> tuple:
        margin = attack_loss("margin", labels=labels, logits=outputs)
        larger = margin > best[1]
        chosen = tf.where(larger[:, None, None, None], points, best[0])
        return chosen, tf.where(larger, margin, best[1])

    def advance_and_keep(
        i: tf.Tensor, points: tf.Tensor, direction: tf.Tensor, best: tuple
    ) -> tuple:
        outputs, following, direction = step(points, direction, i)
        return i + 1, following, direction, better(best, points, outputs)

    nothing = (starts, tf.fill(tf.shape(labels), -np.inf))
    _, points, _, best = tf.while_loop(
        lambda i, *_: i < iterations, advance_and_keep, (0, starts, standstill, nothing),
        parallel_iterations=1,
    )  # fmt: skip
    return better(best, points, logits(points))[0]
