"""Passes that no loss needs: the authors' CIFAR-10 graph makes them, and they move averages."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

from alp_repro.errors import InputError
from alp_repro.models.copies import LogitsFunction
from alp_repro.training.objective import Objective
from alp_repro.training.passes import Passed, averages_of, halves, in_shares


def check(classifier: keras.Model, objective: Objective) -> None:
    """Raise InputError where an objective moves averages that a built classifier has not."""
    if objective.statistics_passes and not averages_of(classifier):
        raise InputError(
            f"statistics_passes: {classifier.name} has no batch norm whose averages they would move"
        )


def move(
    classifier: keras.Model,
    logits: LogitsFunction,
    objective: Objective,
    clean: tf.Tensor,
    adversarial: tf.Tensor | None,
) -> None:
    """Move batch norm's averages by what the loss will not pass, where the objective asks for it.

    Args:
      classifier: whose averages are moved.
      logits: its own, in training mode.
      objective: of the step.
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
) -> Passed:
    """The passes of the authors' graph that the loss does not make.

    Two of the clean images, one of each half of the pairs, and one of an adversarial batch that no
    loss uses; here it is the batch of the loss where that has one.
    """
    alone = objective.penalties if objective.separate_passes else {}
    further = [clean] * (2 - objective.uses_clean - ("lsq" in alone))
    further += [] if "clp" in alone else halves(clean)
    for images in (*further, adversarial):
        logits(images)
    return Passed(None, None, {})
