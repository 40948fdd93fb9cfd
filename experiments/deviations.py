"""What was trained otherwise than the paper has it, by what a run's recipe says."""

from __future__ import annotations

from pathlib import Path

from alp_repro import runs
from alp_repro.training import Recipe

from . import settings


def training_changes(run: runs.RunDir, dataset: str, row: str, *, flags_dir: str | Path) -> str:
    """What the recipe that was run changes in the row's own; "" for nothing."""
    description = runs.describe(run)
    if description.imported is not None:
        return "weights imported from a published checkpoint"
    as_printed = settings.row_flags(dataset=dataset, row=row, scale=None, flags_dir=flags_dir)
    recipe = Recipe.from_json(description.recipe, source=str(run.recipe))
    changed = settings.changes(settings.recipe(as_printed), recipe)
    return ", ".join(f"{key} {ran} (paper {before})" for key, (before, ran) in changed.items())
