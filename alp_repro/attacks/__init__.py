"""Attacks in the L∞ ball: one module each, what they share, and their compiled batches."""

from alp_repro.attacks.apgd import APGD
from alp_repro.attacks.ascent import GradientAttack
from alp_repro.attacks.auto_attack import autoattack, autoattack_parts
from alp_repro.attacks.base import EXECUTION, QUERY_COST, Attack, Cost, Crafted
from alp_repro.attacks.batches import (
    BatchOutcome,
    CraftItems,
    Execution,
    WorkItems,
    exact_bounds,
)
from alp_repro.attacks.draws import (
    Draws,
    choose_targets,
    item_noise,
    random_starts,
)
from alp_repro.attacks.fab import FAB
from alp_repro.attacks.hopping import BasinHopping
from alp_repro.attacks.losses import loss_and_gradient
from alp_repro.attacks.pgd import PGD, pgd_step
from alp_repro.attacks.phases import Ensemble, Phase, as_ensemble, attack_of
from alp_repro.attacks.presets import attack_named, strong_attack
from alp_repro.attacks.random_points import RandomPoints
from alp_repro.attacks.registry import ATTACKS, attack_class, attack_from_json, register
from alp_repro.attacks.spsa import SPSA
from alp_repro.attacks.square import Square
from alp_repro.attacks.turns import Turns
from alp_repro.system.dtypes import Dtype, resolve_dtype

__all__ = [
    "APGD",
    "ATTACKS",
    "EXECUTION",
    "FAB",
    "PGD",
    "QUERY_COST",
    "SPSA",
    "Attack",
    "BasinHopping",
    "BatchOutcome",
    "Cost",
    "CraftItems",
    "Crafted",
    "Draws",
    "Dtype",
    "Ensemble",
    "Execution",
    "GradientAttack",
    "Phase",
    "RandomPoints",
    "Square",
    "Turns",
    "WorkItems",
    "as_ensemble",
    "attack_class",
    "attack_from_json",
    "attack_named",
    "attack_of",
    "autoattack",
    "autoattack_parts",
    "choose_targets",
    "exact_bounds",
    "item_noise",
    "loss_and_gradient",
    "pgd_step",
    "random_starts",
    "register",
    "resolve_dtype",
    "strong_attack",
]
