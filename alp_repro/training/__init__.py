"""Training with logit pairing: a recipe, one training step for all rows, resumable runs."""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
    from alp_repro.training.model import LogitPairingModel, compiled_model
    from alp_repro.training.progress import TrainingProgress, Watch
    from alp_repro.training.recipe import Recipe
    from alp_repro.training.replicas import is_chief
    from alp_repro.training.train import estimate_seconds, train

__all__ = [
    "LogitPairingModel",
    "Recipe",
    "TrainingProgress",
    "Watch",
    "compiled_model",
    "estimate_seconds",
    "is_chief",
    "train",
]

export(
    __name__,
    {
        "alp_repro.training.model": (
            "LogitPairingModel",
            "compiled_model",
        ),
        "alp_repro.training.progress": ("TrainingProgress", "Watch"),
        "alp_repro.training.recipe": ("Recipe",),
        "alp_repro.training.replicas": ("is_chief",),
        "alp_repro.training.train": (
            "estimate_seconds",
            "train",
        ),
    },
)
