"""Cleverhans' own `projected_gradient_descent` and `spsa`: the reference engines, not compiled."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
from cleverhans.tf2.attacks.spsa import SPSAAdam, margin_logit_loss, projected_optimization

from alp_repro.attacks.draws import choose_targets
from alp_repro.attacks.settings import Attack
from alp_repro.model_copies import logits_function

# The protocol's SPSA: what `Attack` has no name for.
SPSA_SAMPLES = 8192
SPSA_DELTA = 0.01

# Crafts adversarial images from (images, labels, image_index, restart).
_Crafting = Callable[..., tf.Tensor]


def cleverhans_pgd(model: keras.Model, attack: Attack, seed: int) -> _Crafting:
    """Cleverhans' own call; its starts come from TensorFlow's global generator, seeded by batch."""
    logits = logits_function(model)

    def crafting(
        images: tf.Tensor, labels: tf.Tensor, image_index: tf.Tensor, restart: tf.Tensor
    ) -> tf.Tensor:
        tf.random.set_seed(mixed_seed(seed, int(image_index[0]), int(restart[0])))
        targets = choose_targets(
            attack.target,
            clean_logits=logits(images),
            labels=labels,
            image_index=image_index,
            restart=restart,
            seed=tf.constant(seed),
        )
        return projected_gradient_descent(
            logits,
            images,
            attack.eps,
            attack.eps_iter,
            attack.nb_iter,
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=labels if targets is None else targets,
            targeted=targets is not None,
            rand_init=attack.random_start,
        )

    return crafting


class SpsaAdam(SPSAAdam):
    """Cleverhans' SPSA optimizer, whose constructor Keras 3 refuses (its argument is `lr`)."""

    def __init__(self, learning_rate: float) -> None:
        keras.optimizers.Adam.__init__(self, learning_rate=learning_rate)
        self.lr = learning_rate
        self._delta = SPSA_DELTA
        self._num_samples = SPSA_SAMPLES // 2  # each is used with both signs
        self._num_iters = 1


def cleverhans_spsa(model: keras.Model, attack: Attack, seed: int) -> _Crafting:
    """Cleverhans' `spsa`, one image at a time as it demands (Uesato et al. 2018)."""
    logits = logits_function(model)
    optimizer = SpsaAdam(attack.eps_iter)

    def crafting(
        images: tf.Tensor, labels: tf.Tensor, image_index: tf.Tensor, restart: tf.Tensor
    ) -> tf.Tensor:
        targets = choose_targets(
            attack.target,
            clean_logits=logits(images),
            labels=labels,
            image_index=image_index,
            restart=restart,
            seed=tf.constant(seed),
        )
        sign, aims = (-1.0, labels) if targets is None else (1.0, targets)

        def loss(points: tf.Tensor, aim: tf.Tensor) -> tf.Tensor:
            outputs = logits(points)
            return sign * margin_logit_loss(outputs, aim, nb_classes=outputs.shape[-1])

        crafted = []
        for i in range(images.shape[0]):
            tf.random.set_seed(mixed_seed(seed, int(image_index[i]), int(restart[i])))
            crafted.append(
                projected_optimization(
                    loss,
                    images[i : i + 1],
                    aims[i : i + 1],
                    attack.eps,
                    attack.nb_iter,
                    optimizer,
                    0.0,
                    1.0,
                )
            )
        return tf.concat(crafted, axis=0)

    return crafting


def mixed_seed(*values: int) -> int:
    """Return one 31-bit seed of several numbers."""
    return int(np.random.SeedSequence(values).generate_state(1)[0] >> 1)
