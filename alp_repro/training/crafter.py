"""The training attack: adversarial images of a batch, crafted inside the training step."""

from __future__ import annotations

import keras
import tensorflow as tf

from alp_repro import stateless_random
from alp_repro.attacks import Draws, GradientAttack, choose_targets
from alp_repro.model_copies import copy_weights, crafting_copy, logits_function
from alp_repro.training.passes import logits_in_shares
from alp_repro.training.recipe import Recipe
from alp_repro.training.replicas import replica_slice


class Crafter:
    """Crafts the adversarial images of a batch; no Keras object, so that no copy is saved.

    A copy of the model is needed for another dtype, and where crafting in training mode would
    move the averages of the model's batch norm.
    """

    def __init__(self, classifier: keras.Model, recipe: Recipe) -> None:
        self._recipe, self._classifier, self._copy = recipe, classifier, None
        if recipe.attack is None:
            return
        moves_averages = recipe.attack_batch_statistics and classifier.non_trainable_variables
        if moves_averages or not recipe.dtype == recipe.attack.dtype == "float32":
            self._copy = crafting_copy(classifier, recipe.attack.dtype)

    def craft(
        self, images: tf.Tensor, labels: tf.Tensor, *, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Adversarial images, float32 like `images`, with no gradient through the crafting.

        `step` counts the optimizer's steps (for the warm-up), `seed` is a stateless one.
        """
        attack = self._recipe.attack
        assert isinstance(attack, GradientAttack)
        if self._copy is not None:
            copy_weights(self._classifier, self._copy)
        logits = logits_function(
            self._copy or self._classifier, training=self._recipe.attack_batch_statistics
        )
        if self._recipe.attack_batch_statistics:
            logits = logits_in_shares(logits, shares=self._recipe.virtual_replicas)
        scale = tf.constant(1.0)
        if self._recipe.attack_warmup_steps:
            scale = tf.cast(step + 1, tf.float32) / self._recipe.attack_warmup_steps
            scale = tf.minimum(scale, 1.0)
        starts = images
        if attack.random_start:
            noise = replica_slice(
                lambda shape: stateless_random.uniform(shape, seed, low=-1.0, high=1.0), images
            )
            starts = tf.clip_by_value(images + attack.eps * scale * noise, 0.0, 1.0)
        draws = Draws(starts, self._targets(images, labels, seed))
        return attack.scaled(scale).ascend(logits, images, labels, draws).adversarial

    def _targets(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor | None:
        attack = self._recipe.attack
        assert isinstance(attack, GradientAttack)
        if attack.target == "none":
            return None
        positions = replica_slice(lambda shape: tf.range(shape[0]), images)
        clean_logits = logits_function(self._classifier, training=False)(images)
        return choose_targets(
            attack.target,
            clean_logits=clean_logits,
            labels=labels,
            image_index=positions,
            restart=tf.zeros_like(positions),
            seed=tf.cast(seed[1] % (2**31), tf.int32),
        )
