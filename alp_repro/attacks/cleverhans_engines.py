"""Cleverhans' own `projected_gradient_descent` and `spsa`: the reference engines, not compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
from cleverhans.tf2.attacks.spsa import SPSAAdam, margin_logit_loss, projected_optimization

from alp_repro.attacks.ascent import item_targets
from alp_repro.attacks.base import Crafted
from alp_repro.attacks.losses import finite_gradient
from alp_repro.attacks.spsa import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from alp_repro.attacks.batches import CraftItems
    from alp_repro.attacks.pgd import PGD
    from alp_repro.attacks.spsa import SPSA
    from alp_repro.models.copies import LogitsFunction

# The protocol's SPSA: constants that are not settings of the attack.
SPSA_SAMPLES = SAMPLES
SPSA_DELTA = 0.01


def cleverhans_pgd(attack: PGD, logits: LogitsFunction, items: CraftItems) -> Crafted:
    """Call Cleverhans' PGD, whose starts come from TensorFlow's global generator, seeded here."""
    tf.random.set_seed(
        mixed_seed(int(items.seed), int(items.image_index[0]), int(items.restart[0]))
    )
    targets = item_targets(attack.target, items)
    found = projected_gradient_descent(
        logits,
        items.images,
        attack.eps,
        attack.eps_iter,
        attack.nb_iter,
        np.inf,
        clip_min=0.0,
        clip_max=1.0,
        y=items.labels if targets is None else targets,
        targeted=targets is not None,
        rand_init=attack.random_start,
    )
    return Crafted(found, tf.zeros_like(items.labels))


class SpsaAdam(SPSAAdam):
    """Cleverhans' SPSA optimizer, whose constructor Keras 3 refuses (its argument is `lr`)."""

    def __init__(self, learning_rate: float) -> None:
        keras.optimizers.Adam.__init__(self, learning_rate=learning_rate)
        self.lr = learning_rate
        self._delta = SPSA_DELTA
        self._num_samples = SPSA_SAMPLES // 2  # each is used with both signs
        self._num_iters = 1
        self.nonfinite = 0  # steps whose gradient had entries that are not finite

    def _compute_gradients(
        self, loss_fn: Callable[[tf.Tensor], tf.Tensor], x: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Compute Cleverhans' gradient, with 0 for entries that are not finite.

        They would spoil all later steps.
        """
        (gradient,) = super()._compute_gradients(loss_fn, x)
        gradient, nonfinite = finite_gradient(gradient)
        self.nonfinite += int(tf.reduce_any(nonfinite))
        return [gradient]


def cleverhans_spsa(attack: SPSA, logits: LogitsFunction, items: CraftItems) -> Crafted:
    """Call Cleverhans' SPSA, one image at a time as it requires (Uesato et al. 2018)."""
    targets = item_targets(attack.target, items)
    sign, classes = (-1.0, items.labels) if targets is None else (1.0, targets)

    def loss(points: tf.Tensor, aim: tf.Tensor) -> tf.Tensor:
        outputs = logits(points)
        return sign * margin_logit_loss(outputs, aim, nb_classes=outputs.shape[-1])

    crafted, nonfinite = [], []
    for i in range(items.images.shape[0]):
        tf.random.set_seed(
            mixed_seed(int(items.seed), int(items.image_index[i]), int(items.restart[i]))
        )
        optimizer = SpsaAdam(attack.learning_rate)
        crafted.append(
            projected_optimization(
                loss,
                items.images[i : i + 1],
                classes[i : i + 1],
                attack.eps,
                attack.nb_iter,
                optimizer,
                0.0,
                1.0,
            )
        )
        nonfinite.append(optimizer.nonfinite)
    return Crafted(tf.concat(crafted, axis=0), tf.constant(nonfinite, items.labels.dtype))


def mixed_seed(*values: int) -> int:
    """Return one 31-bit seed of several numbers."""
    return int(np.random.SeedSequence(values).generate_state(1)[0] >> 1)
