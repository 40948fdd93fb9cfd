"""The owner of a run folder: comparison of the training in it with the one that is requested."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alp_repro import runs
from alp_repro.errors import InputError
from alp_repro.training.recipe import Recipe
from alp_repro.validation import decoding

if TYPE_CHECKING:
    import keras

_ELSEWHERE = "choose another run folder, or remove this one"


@dataclasses.dataclass(frozen=True)
class Owner:
    """The identity of a training: its recipe and the model that it starts from.

    Attributes:
      recipe: of the training.
      init_from: hash of the weights that it starts from; None: new weights.
    """

    recipe: Recipe
    init_from: str | None = None

    @classmethod
    def of(cls, recipe: Recipe, init_from: keras.Model | None) -> Owner:
        """Return the owner of a training that starts from a model, or from new weights."""
        return cls(recipe, None if init_from is None else runs.weights_hash(init_from))

    def to_json(self) -> dict[str, Any]:
        """Return the content of settings.json."""
        start = {} if self.init_from is None else {"init_from": self.init_from}
        return {**self.recipe.to_json(), **start}

    @classmethod
    def from_json(cls, found: Any, *, source: str) -> Owner:
        """Return the owner that `to_json` wrote, in this version or earlier; else InputError."""
        described = decoding.from_plain(found, dict[str, Any], source=source)
        if "imported" in described:
            raise InputError(f"{source}: the folder has an imported model: {_ELSEWHERE}")
        start = decoding.from_plain(
            described.pop("init_from", None), str | None, source=f"{source}, init_from"
        )
        return cls(Recipe.from_json(described, source=source), start)


def check_owner(run: runs.RunDir, wanted: Owner) -> None:
    """Check that the training in a folder, finished or not, is the wanted one.

    Raises:
      InputError: it is not, a file that describes it is damaged, or a model has no description.
    """
    if run.settings.exists():
        found = decoding.read_json(run.settings)
        check_same(Owner.from_json(found, source=str(run.settings)), wanted, run)
    if run.recipe.exists():
        description = runs.describe(run)
        found_recipe = Recipe.from_json(description.recipe, source=str(run.recipe))
        check_same(Owner(found_recipe, wanted.init_from), wanted, run)
    elif run.model.exists() and not run.settings.exists():
        raise InputError(
            f"{run.model} exists without settings.json and recipe.json, so its training is "
            "unknown: move it away, or choose another run folder"
        )


def check_same(found: Owner, wanted: Owner, run: runs.RunDir) -> None:
    """Raise InputError with the differences if a run belongs to another training.

    An unfinished one may get more epochs, since so far both do the same, unless the learning rate
    depends on their number.
    """
    start, recipe = found.init_from, found.recipe
    if wanted.init_from is None and run.finished:
        start = None  # nothing starts from it any more
    longer = recipe.epochs < wanted.recipe.epochs and recipe.cyclic_peak is None
    if longer and not run.finished:
        recipe = dataclasses.replace(recipe, epochs=wanted.recipe.epochs)
    if (recipe, start) == (wanted.recipe, wanted.init_from):
        return
    differences = _differences({**found.to_json(), "init_from": start}, wanted.to_json())
    raise InputError(f"{run.path} has a model with other settings ({differences}): {_ELSEWHERE}")


def finished_model(run: runs.RunDir, wanted: Owner) -> keras.Model:
    """Return the model of a finished run.

    Raises:
      InputError: it belongs to another training, or is not the model that was trained there.
    """
    check_owner(run, wanted)
    model = runs.load_model(run.model)
    trained = runs.describe(run).weights
    if runs.weights_hash(model) != trained:
        raise InputError(
            f"{run.model} does not have the weights that were trained there (hash "
            f"{runs.weights_hash(model)}, expected {trained} as in recipe.json): restore the "
            "model, or remove the folder"
        )
    return model


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    changed = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    return ", ".join(
        f"{key}: {found.get(key)!r} in the folder, {wanted.get(key)!r} requested"
        for key in changed[:3]
    )
