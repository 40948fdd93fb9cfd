"""What was trained otherwise than the paper has it, by what a run's recipe says, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alp_repro import runs
from alp_repro.training import Recipe

from ..flags import settings

Changes = dict[str, tuple[Any, Any]]

IMPORTED = "weights imported from a published checkpoint"
# How numbers are computed, which is no shorter and no other training.
ARITHMETIC = ("train_dtype", "train_attack_dtype", "round_weights")
# Settings of a training that make it less than the paper's.
LESS = (
    "epochs",
    "model_width",
    "train_nb_iter",
    "train_eps_iter",
    "attack_warmup_steps",
    "attack_warmup_nb_iter",
)

# Sentences of what ran and what the paper has; other settings are called by their names.
_WORDS = {
    "epochs": "{ran} epochs (paper {paper})",
    "model_width": "a network of width {ran} (paper: the whole width)",
    "train_images": "{ran} training images (paper: all)",
    "train_nb_iter": "{ran} steps of the training attack (paper {paper})",
    "train_eps_iter": "steps of {ran} in the training attack (paper {paper})",
    "attack_warmup_steps": "a training attack that grows over the first {ran} steps (paper: no)",
    "train_attack_dtype": "training attack crafted in {ran} (paper {paper})",
    "train_dtype": "passes in {ran} (paper {paper})",
    "round_weights": "finished weights rounded to bfloat16 (paper: no)",
    "statistics_passes": "further passes that move batch norm's averages",
    "seed": "seed {ran}",
}


def training_changes(
    run: runs.RunDir, dataset: str, row: str, *, flags_dir: str | Path
) -> Changes | None:
    """Return what the recipe that was run changes in the row's own: setting -> (paper's, ran).

    None for imported weights.
    """
    description = runs.describe(run)
    if description.imported is not None:
        return None
    as_printed = settings.row_flags(dataset=dataset, row=row, scale=None, flags_dir=flags_dir)
    recipe = Recipe.from_json(description.recipe, source=str(run.recipe))
    return settings.changes(settings.recipe(as_printed), recipe)


def in_words(changes: Changes | None, *, leaving_out: tuple[str, ...] = ()) -> str:
    """Say changes in one line; "" for none."""
    if changes is None:
        return IMPORTED
    return ", ".join(
        _WORDS.get(key, f"{key.replace('_', ' ')} {{ran}} (paper {{paper}})").format(
            ran=ran, paper=before
        )
        for key, (before, ran) in changes.items()
        if key not in leaving_out
    )
