"""Gradient attacks in the L∞ ball: settings, starting points, targets, losses, compiled batches."""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
    from alp_repro.attacks.batches import (
        DEFAULT_BATCH,
        BatchOutcome,
        Execution,
        GridOutcome,
        WorkItems,
        exact_bounds,
    )
    from alp_repro.attacks.draws import (
        choose_targets,
        item_noise,
        item_seed,
        items_without_noise,
        random_starts,
    )
    from alp_repro.attacks.losses import LOSSES, attack_loss
    from alp_repro.attacks.pgd import craft, loss_and_gradient, pgd_step
    from alp_repro.attacks.programs import (
        AttackProgram,
        attack_program,
        grid_program,
        iterates_are_results,
    )
    from alp_repro.attacks.settings import (
        EXECUTION,
        QUERY_COST,
        Attack,
        StepSizes,
        size_settings,
        strong_attack,
    )
    from alp_repro.dtypes import Dtype, resolve_dtype

__all__ = [
    "DEFAULT_BATCH",
    "EXECUTION",
    "LOSSES",
    "QUERY_COST",
    "Attack",
    "AttackProgram",
    "BatchOutcome",
    "Dtype",
    "Execution",
    "GridOutcome",
    "StepSizes",
    "WorkItems",
    "attack_loss",
    "attack_program",
    "choose_targets",
    "craft",
    "exact_bounds",
    "grid_program",
    "item_noise",
    "item_seed",
    "items_without_noise",
    "iterates_are_results",
    "loss_and_gradient",
    "pgd_step",
    "random_starts",
    "resolve_dtype",
    "size_settings",
    "strong_attack",
]

export(
    __name__,
    {
        "alp_repro.attacks.batches": (
            "DEFAULT_BATCH",
            "BatchOutcome",
            "Execution",
            "GridOutcome",
            "WorkItems",
            "exact_bounds",
        ),
        "alp_repro.attacks.draws": (
            "choose_targets",
            "item_noise",
            "item_seed",
            "items_without_noise",
            "random_starts",
        ),
        "alp_repro.attacks.losses": (
            "LOSSES",
            "attack_loss",
        ),
        "alp_repro.attacks.pgd": (
            "craft",
            "loss_and_gradient",
            "pgd_step",
        ),
        "alp_repro.attacks.programs": (
            "AttackProgram",
            "attack_program",
            "grid_program",
            "iterates_are_results",
        ),
        "alp_repro.attacks.settings": (
            "EXECUTION",
            "QUERY_COST",
            "Attack",
            "StepSizes",
            "size_settings",
            "strong_attack",
        ),
        "alp_repro.dtypes": (
            "Dtype",
            "resolve_dtype",
        ),
    },
)
