"""Gradient attacks in the L∞ ball: settings, starting points, targets, losses, compiled batches."""

from alp_repro.attacks.draws import (
    calm_items,
    choose_targets,
    item_noise,
    item_seed,
    random_starts,
)
from alp_repro.attacks.losses import LOSSES, attack_loss
from alp_repro.attacks.pgd import craft, loss_and_gradient, pgd_step
from alp_repro.attacks.programs import (
    AttackProgram,
    BatchOutcome,
    attack_program,
    exact_bounds,
)
from alp_repro.attacks.settings import (
    EXECUTION,
    Attack,
    Sizes,
    size_settings,
    strong_attack,
)
from alp_repro.dtypes import Dtype, resolve_dtype

__all__ = [
    "EXECUTION",
    "LOSSES",
    "Attack",
    "AttackProgram",
    "BatchOutcome",
    "Dtype",
    "Sizes",
    "attack_loss",
    "attack_program",
    "calm_items",
    "choose_targets",
    "craft",
    "exact_bounds",
    "item_noise",
    "item_seed",
    "loss_and_gradient",
    "pgd_step",
    "random_starts",
    "resolve_dtype",
    "size_settings",
    "strong_attack",
]
