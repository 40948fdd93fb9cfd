"""The inner maximisation of TRADES: away from the clean prediction, without the label."""

from __future__ import annotations

import tensorflow as tf

from alp_repro.attacks import PGD, pgd_step
from alp_repro.attacks.losses import finite_gradient
from alp_repro.models.copies import LogitsFunction


def climb_divergence(
    logits: LogitsFunction, images: tf.Tensor, *, starts: tf.Tensor, attack: PGD
) -> tf.Tensor:
    """Return images whose predictions diverge from the clean ones: sign steps up KL(p(x) ‖ p(x')).

    Zhang et al. 2019, "Theoretically principled trade-off between robustness and accuracy",
    algorithm 1. The divergence has the gradient of the cross-entropy to the clean prediction.

    Args:
      logits: the crafting model.
      images: float32 [batch, height, width, channels] in [0, 1].
      starts: like the images; at an image itself the gradient is 0.
      attack: gives eps, eps_iter and nb_iter, as numbers or tensors.
    """
    clean = tf.stop_gradient(tf.nn.softmax(logits(images)))

    def gradient_at(points: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            values = tf.nn.softmax_cross_entropy_with_logits(labels=clean, logits=logits(points))
        return tape.gradient(values, points)

    if tf.inside_function():  # see `attacks.loss_and_gradient`
        gradient_at = tf.function(
            gradient_at, experimental_attributes={"_noinline": True}, autograph=False
        )

    def step(i: tf.Tensor, points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        gradient, _ = finite_gradient(gradient_at(points))
        moved = pgd_step(points, gradient, images=images, eps=attack.eps, step_size=attack.eps_iter)
        return i + 1, moved

    _, crafted = tf.while_loop(
        lambda i, _: i < attack.nb_iter, step, (tf.constant(0), starts), parallel_iterations=1
    )
    return tf.stop_gradient(crafted)
