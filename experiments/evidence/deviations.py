"""Describes how a training differs from the paper's, by its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alp_repro import runs
from alp_repro.training import Recipe

from ..flags import settings

Changes = dict[str, tuple[Any, Any]]

IMPORTED = "weights imported from a published checkpoint"
# Settings of the arithmetic, which make a training neither shorter nor weaker.
ARITHMETIC = ("train_dtype", "train_attack_dtype", "round_weights")
# Settings that make a training shorter or weaker than the paper's.
LESS = (
    "epochs",
    "model_width",
    "train_nb_iter",
    "train_eps_iter",
    "attack_warmup_steps",
    "attack_warmup_nb_iter",
)

# Phrases for a setting that was run and the paper's; other settings are called by their names.
_PHRASES = {
    "epochs": "{ran} epochs (paper {paper})",
    "model_width": "a network of width {ran} (paper: the whole width)",
    "batch_norm_decay": "batch norm's averages with decay {ran} (paper: the network's own)",
    "train_images": "{ran} training images (paper: all)",
    "batch_size": "batches of {ran} (paper {paper})",
    "train_nb_iter": "{ran} steps of the training attack (paper {paper})",
    "train_eps_iter": "steps of {ran} in the training attack (paper {paper})",
    "attack_warmup_steps": "a training attack that grows over the first {ran} steps (paper: no)",
    "attack_warmup_nb_iter": "n = {ran} in the training attack while it grows (paper: no growth)",
    "train_attack_dtype": "training attack crafted in {ran} (paper {paper})",
    "train_dtype": "passes in {ran} (paper {paper})",
    "round_weights": "finished weights rounded to bfloat16 (paper: no)",
    "statistics_passes": "additional passes that update batch norm's averages",
    "max_steps": "at most {ran} training steps (paper: no limit)",
    "seed": "seed {ran}",
}


def training_changes(
    run: runs.RunDir, dataset: str, row: str, *, flags_dir: str | Path
) -> Changes | None:
    """Return how a run's recipe differs from the row's: setting -> (paper's, the run's).

    None for imported weights.
    """
    description = runs.describe(run)
    if description.imported is not None:
        return None
    as_printed = settings.row_flags(dataset=dataset, row=row, scale=None, flags_dir=flags_dir)
    recipe = Recipe.from_json(description.recipe, source=str(run.recipe))
    return settings.changes(settings.recipe(as_printed), recipe)


def in_words(changes: Changes | None, *, leaving_out: tuple[str, ...] = ()) -> str:
    """Describe changes in one line; "" for none."""
    if changes is None:
        return IMPORTED
    return ", ".join(
        _PHRASES.get(key, f"{key.replace('_', ' ')} {{ran}} (paper {{paper}})").format(
            ran=ran, paper="none" if before is None else before
        )
        for key, (before, ran) in changes.items()
        if key not in leaving_out
    )
