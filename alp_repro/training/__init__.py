"""Training with logit pairing: a recipe, one training step for all rows, resumable runs."""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
    from alp_repro.training.logit_pairing import LogitPairing
    from alp_repro.training.model import compiled_model
    from alp_repro.training.objective import Objective
    from alp_repro.training.progress import TrainingProgress, Watch
    from alp_repro.training.rates import TriangularRate
    from alp_repro.training.recipe import Recipe
    from alp_repro.training.replicas import is_chief
    from alp_repro.training.schedule import Schedule
    from alp_repro.training.train import estimate_seconds, steps_of, train

__all__ = [
    "LogitPairing",
    "Objective",
    "Recipe",
    "Schedule",
    "TrainingProgress",
    "TriangularRate",
    "Watch",
    "compiled_model",
    "estimate_seconds",
    "is_chief",
    "steps_of",
    "train",
]

export(
    __name__,
    {
        "alp_repro.training.logit_pairing": ("LogitPairing",),
        "alp_repro.training.model": ("compiled_model",),
        "alp_repro.training.objective": ("Objective",),
        "alp_repro.training.progress": ("TrainingProgress", "Watch"),
        "alp_repro.training.rates": ("TriangularRate",),
        "alp_repro.training.recipe": ("Recipe",),
        "alp_repro.training.replicas": ("is_chief",),
        "alp_repro.training.schedule": ("Schedule",),
        "alp_repro.training.train": (
            "estimate_seconds",
            "steps_of",
            "train",
        ),
    },
)
