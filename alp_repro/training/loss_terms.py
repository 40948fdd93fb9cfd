"""The forward passes of an objective, and the terms of its loss."""

from __future__ import annotations

import tensorflow as tf

from alp_repro import losses
from alp_repro.losses import PENALTIES
from alp_repro.models.copies import LogitsFunction
from alp_repro.training.objective import Objective
from alp_repro.training.passes import ShareLogits, halves


def forward(
    logits: LogitsFunction, objective: Objective, clean: tf.Tensor, adversarial: tf.Tensor | None
) -> ShareLogits:
    """Make the objective's forward passes on one share of a batch."""
    if objective.joint_batch and adversarial is not None:
        both = logits(tf.concat([clean, adversarial], axis=0))
        halves_of_both = tf.split(both, 2)
        return ShareLogits(halves_of_both[0], halves_of_both[1], {})
    clean_logits = logits(clean) if objective.uses_clean else None
    alone = {}
    for name in objective.penalties if objective.separate_passes else ():
        penalty = PENALTIES[name]
        if "clean" in penalty.needs and "adversarial" not in penalty.needs:
            parts = halves(clean) if penalty.pairs else (clean,)
            alone[name] = tf.concat([logits(part) for part in parts], axis=0)
    uses_adversarial = adversarial is not None and objective.uses_adversarial
    return ShareLogits(clean_logits, logits(adversarial) if uses_adversarial else None, alone)


def weighted_terms(
    objective: Objective, labels: tf.Tensor, share: ShareLogits
) -> dict[str, tf.Tensor]:
    """Return the weighted terms of one share's loss by name, without those of weight 0."""
    smoothing = objective.label_smoothing
    terms = {}
    if objective.clean_weight:
        value = losses.cross_entropy(labels, share.clean, label_smoothing=smoothing)
        terms["clean_ce"] = objective.clean_weight * value
    if objective.adversarial_weight:
        value = losses.cross_entropy(labels, share.adversarial, label_smoothing=smoothing)
        terms["adversarial_ce"] = objective.adversarial_weight * value
    of_kind = {"clean": share.clean, "adversarial": share.adversarial, "labels": labels}
    for name, weight in objective.penalties.items():
        penalty = PENALTIES[name]
        given = of_kind | (
            {"clean": share.penalty_logits[name]} if name in share.penalty_logits else {}
        )
        terms[name] = weight * penalty.function(*(given[kind] for kind in penalty.needs))
    return terms
