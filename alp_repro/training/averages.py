"""Forward passes of the authors' CIFAR-10 graph that only update batch norm's averages."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

from alp_repro.errors import InputError
from alp_repro.models.copies import LogitsFunction
from alp_repro.training.objective import Objective
from alp_repro.training.passes import ShareLogits, averages_of, halves, in_shares


def check(classifier: keras.Model, objective: Objective) -> None:
    """Raise InputError if an objective updates averages that a built classifier does not have."""
    if objective.statistics_passes and not averages_of(classifier):
        raise InputError(
            f"statistics_passes: expected a model with batch norm, {classifier.name} has none"
        )


def update(
    classifier: keras.Model,
    logits: LogitsFunction,
    objective: Objective,
    clean: tf.Tensor,
    adversarial: tf.Tensor | None,
) -> None:
    """Update batch norm's averages by the passes that the loss does not make, if so configured.

    Args:
      classifier: the model whose averages are updated.
      logits: its logits function in training mode.
      objective: of the training step.
      clean, adversarial: the batch, float32 [batch, height, width, channels].
    """
    if objective.statistics_passes:
        in_shares(
            functools.partial(_further_passes, logits, objective),
            (clean, adversarial),
            shares=objective.virtual_replicas,
            averages=averages_of(classifier),
        )


def _further_passes(
    logits: LogitsFunction, objective: Objective, clean: tf.Tensor, adversarial: tf.Tensor
) -> ShareLogits:
    """Make the passes of the authors' graph that the loss does not make.

    Two of the clean images, one of each half of the pairs, and one of an adversarial batch that no
    loss uses; here it is the loss's adversarial batch if there is one.
    """
    alone = objective.penalties if objective.separate_passes else {}
    further = [clean] * (2 - objective.uses_clean - ("lsq" in alone))
    further += [] if "clp" in alone else halves(clean)
    for images in (*further, adversarial):
        logits(images)
    return ShareLogits(None, None, {})
