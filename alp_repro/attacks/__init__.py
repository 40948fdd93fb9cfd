"""Attacks in the L∞ ball: one module each, what they share, and their compiled batches."""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
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
    from alp_repro.attacks.programs import AttackProgram, attack_program
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
    "AttackProgram",
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
    "attack_program",
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

export(
    __name__,
    {
        "alp_repro.attacks.apgd": ("APGD",),
        "alp_repro.attacks.ascent": ("GradientAttack",),
        "alp_repro.attacks.auto_attack": ("autoattack", "autoattack_parts"),
        "alp_repro.attacks.base": (
            "EXECUTION",
            "QUERY_COST",
            "Attack",
            "Cost",
            "Crafted",
        ),
        "alp_repro.attacks.batches": (
            "BatchOutcome",
            "CraftItems",
            "Execution",
            "WorkItems",
            "exact_bounds",
        ),
        "alp_repro.attacks.draws": (
            "Draws",
            "choose_targets",
            "item_noise",
            "random_starts",
        ),
        "alp_repro.attacks.fab": ("FAB",),
        "alp_repro.attacks.hopping": ("BasinHopping",),
        "alp_repro.attacks.losses": ("loss_and_gradient",),
        "alp_repro.attacks.pgd": (
            "PGD",
            "pgd_step",
        ),
        "alp_repro.attacks.phases": ("Ensemble", "Phase", "attack_of", "as_ensemble"),
        "alp_repro.attacks.turns": ("Turns",),
        "alp_repro.attacks.programs": (
            "AttackProgram",
            "attack_program",
        ),
        "alp_repro.attacks.random_points": ("RandomPoints",),
        "alp_repro.attacks.registry": (
            "ATTACKS",
            "attack_class",
            "attack_from_json",
            "register",
        ),
        "alp_repro.attacks.spsa": ("SPSA",),
        "alp_repro.attacks.square": ("Square",),
        "alp_repro.attacks.presets": ("attack_named", "strong_attack"),
        "alp_repro.system.dtypes": (
            "Dtype",
            "resolve_dtype",
        ),
    },
)
