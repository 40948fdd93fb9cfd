"""Whose a run folder is: what was trained there, or is being trained, against what is asked for."""

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

_ELSEWHERE = "name another run folder, or remove this one"


@dataclasses.dataclass(frozen=True)
class Owner:
    """What makes one training: its recipe and the model that it starts from.

    Attributes:
      recipe: of the training.
      init_from: hash of the weights that it starts from; None: fresh ones.
    """

    recipe: Recipe
    init_from: str | None = None

    @classmethod
    def of(cls, recipe: Recipe, init_from: keras.Model | None) -> Owner:
        """The owner of a training that starts from a model, or from fresh weights."""
        return cls(recipe, None if init_from is None else runs.weights_hash(init_from))

    def to_json(self) -> dict[str, Any]:
        """Plain data: the content of settings.json."""
        start = {} if self.init_from is None else {"init_from": self.init_from}
        return {**self.recipe.to_json(), **start}

    @classmethod
    def from_json(cls, found: Any, *, source: str) -> Owner:
        """What `to_json` wrote, in this version or before; InputError for anything else."""
        described = decoding.from_plain(found, dict[str, Any], source=source)
        if "imported" in described:
            raise InputError(f"{source}: an imported model is there: {_ELSEWHERE}")
        start = decoding.from_plain(
            described.pop("init_from", None), str | None, source=f"{source}, init_from"
        )
        return cls(Recipe.from_json(described, source=source), start)


def check_owner(run: runs.RunDir, wanted: Owner) -> None:
    """Makes sure that what a folder holds was made, or begun, as is wanted.

    Raises:
      InputError: it was not, a file that says so is damaged, or there is a model and none.
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
            f"{run.model} is there without settings.json and recipe.json, so it is not known what "
            f"it is: move it away, or name another run folder"
        )


def check_same(found: Owner, wanted: Owner, run: runs.RunDir) -> None:
    """InputError with what differs, when a run belongs to another training than is wanted.

    One that is not finished may be given more epochs: until then both do the same, but where the
    learning rate depends on how many there are.
    """
    start, recipe = found.init_from, found.recipe
    if wanted.init_from is None and run.finished:
        start = None  # nothing starts from it any more
    longer = recipe.epochs < wanted.recipe.epochs and recipe.cyclic_peak is None
    if longer and not run.finished:
        recipe = dataclasses.replace(recipe, epochs=wanted.recipe.epochs)
    if (recipe, start) == (wanted.recipe, wanted.init_from):
        return
    told = _differences({**found.to_json(), "init_from": start}, wanted.to_json())
    raise InputError(f"{run.path} holds a model with other settings ({told}): {_ELSEWHERE}")


def finished_model(run: runs.RunDir, wanted: Owner) -> keras.Model:
    """The model of a finished run.

    Raises:
      InputError: it belongs to another training, or is not the model that was trained there.
    """
    check_owner(run, wanted)
    model = runs.load_model(run.model)
    trained = runs.describe(run).weights
    if runs.weights_hash(model) != trained:
        raise InputError(
            f"{run.model} has other weights than were trained there ({runs.weights_hash(model)}, "
            f"recipe.json says {trained}): put the model back, or remove the folder"
        )
    return model


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    changed = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    return ", ".join(
        f"{key} {found.get(key)!r} there, {wanted.get(key)!r} asked for" for key in changed[:3]
    )
