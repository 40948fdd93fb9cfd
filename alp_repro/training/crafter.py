"""The training attack: adversarial images of a batch, crafted inside the training step."""

from __future__ import annotations

import keras
import tensorflow as tf

from alp_repro import stateless_random
from alp_repro.attacks import PGD, Draws, GradientAttack, choose_targets
from alp_repro.classifiers.heads import is_graph
from alp_repro.models.copies import (
    computes_in_float32,
    copy_in_dtype,
    copy_weights,
    logits_function,
)
from alp_repro.training.divergence import climb_divergence
from alp_repro.training.objective import Objective
from alp_repro.training.passes import averages_of, logits_in_shares
from alp_repro.training.replicas import replica_slice

_N_FGSM_NOISE = 2  # half-width of the start in units of eps (de Jorge et al. 2022)
_TRADES_NOISE = 0.001  # deviation of the start (Zhang et al. 2019)


class Crafter:
    """Crafts the adversarial images of a batch; not a Keras object, so that its copy is not saved.

    Another dtype needs a copy of the model. A subclassed model in mixed precision, which cannot be
    copied, crafts in its own dtype.
    """

    def __init__(self, classifier: keras.Model, objective: Objective) -> None:
        self._objective, self._classifier, self._copy = objective, classifier, None
        attack = objective.attack
        if attack is None:
            return
        in_float32 = computes_in_float32(classifier)
        own_dtype = attack.dtype == "float32" and (in_float32 or not is_graph(classifier))
        if not own_dtype:
            self._copy = copy_in_dtype(classifier, attack.dtype)

    def craft(
        self, images: tf.Tensor, labels: tf.Tensor, *, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return adversarial images, float32 like `images`, with no gradient through the crafting.

        `step` counts the optimizer's steps (for the warm-up), `seed` is a stateless one. Batch
        norm's averages are unchanged afterwards.
        """
        if self._copy is not None:
            copy_weights(self._classifier, self._copy)
            return self._crafted(self._copy, images, labels, step=step, seed=seed)
        moving = averages_of(self._classifier) if self._objective.attack_batch_statistics else []
        before = [tf.identity(average.value) for average in moving]
        crafted = self._crafted(self._classifier, images, labels, step=step, seed=seed)
        for average, value in zip(moving, before, strict=True):
            average.assign(value)
        return crafted

    def _crafted(
        self,
        model: keras.Model,
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        step: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        objective, attack = self._objective, self._objective.attack
        assert isinstance(attack, GradientAttack)
        logits = logits_function(model, training=objective.attack_batch_statistics)
        if objective.attack_batch_statistics:
            logits = logits_in_shares(logits, shares=objective.virtual_replicas)
        scale = tf.constant(1.0)
        if objective.attack_warmup_steps:
            scale = tf.cast(step + 1, tf.float32) / objective.attack_warmup_steps
            scale = tf.minimum(scale, 1.0)
        starts = self._starts(images, scale, seed) if attack.random_start else images
        held = attack.replace_unchecked(eps=attack.eps * scale)
        if isinstance(attack, PGD):
            ball = attack.eps
            if objective.crafting == "n_fgsm":  # as far as noise and step can go
                ball = _N_FGSM_NOISE * attack.eps + attack.eps_iter
            iterations = attack.nb_iter
            if objective.attack_warmup_nb_iter is not None:
                iterations = tf.where(scale < 1, objective.attack_warmup_nb_iter, iterations)
            held = attack.replace_unchecked(
                eps=ball * scale, eps_iter=attack.eps_iter * scale, nb_iter=iterations
            )
            if objective.crafting == "trades":
                return climb_divergence(logits, images, starts=starts, attack=held)
        draws = Draws(starts, self._targets(images, labels, seed))
        return held.ascend(logits, images, labels, draws).adversarial

    def _starts(self, images: tf.Tensor, scale: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        crafting, attack = self._objective.crafting, self._objective.attack
        assert attack is not None
        if crafting == "trades":
            return images + replica_slice(
                lambda shape: tf.random.stateless_normal(
                    shape, seed, stddev=_TRADES_NOISE, alg="philox"
                ),
                images,
            )
        width = attack.eps * (_N_FGSM_NOISE if crafting == "n_fgsm" else 1)
        noise = replica_slice(
            lambda shape: stateless_random.uniform(shape, seed, low=-1.0, high=1.0), images
        )
        starts = images + width * scale * noise
        return starts if crafting == "fast" else tf.clip_by_value(starts, 0.0, 1.0)

    def _targets(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor | None:
        attack = self._objective.attack
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
