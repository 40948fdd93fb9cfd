"""The published runs: models and results that come with the repository, and how they are checked.

results/published/<dataset>/<row>/    a run as any other, whose model and records are kept in git
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alp_repro import files, runs, shipped
from alp_repro.attacks.base import Attack
from alp_repro.attacks.phases import Ensemble
from alp_repro.data.images import Images, images_digest, unit_scale
from alp_repro.errors import InputError
from alp_repro.evaluation.record import AttackRecord
from alp_repro.evaluation.record_file import load_record
from alp_repro.evaluation.restarts import Progress
from alp_repro.models.copies import float32_model
from alp_repro.models.identity import function_identity
from alp_repro.system.dtypes import Dtype

if TYPE_CHECKING:
    import keras

SCALE = "published"


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What a result that is kept and the same attack made afresh say of each image.

    Attributes:
      attack: what was done; its restarts are those that were made afresh.
      kept, fresh: bool [n], the image was broken within these restarts.
      clean_differs: bool [n], it was classified correctly in one of the two only.
      waiting: images of the record that its attack is not done with.
      crafted_as: the dtype in which the attack was made afresh; another one than the record's takes
        other ways through a rugged loss surface: the numbers agree then, and single images do not.
    """

    attack: Attack | Ensemble
    kept: np.ndarray
    fresh: np.ndarray
    clean_differs: np.ndarray
    waiting: int
    crafted_as: Dtype

    def agrees(self, tolerance: float) -> bool:
        """Return whether the two are the same result.

        Args:
          tolerance: share of the images that may differ. Of attacks crafted in different dtypes it
            is the difference of their accuracies, beyond three standard deviations of what chance
            makes of the images that differ (McNemar).
        """
        n, differing = len(self.kept), len(self.differing)
        if self.crafted_as == self.attack.dtype:
            return differing <= tolerance * n
        apart = abs(int(self.kept.sum()) - int(self.fresh.sum()))
        return not self.clean_differs.any() and apart <= tolerance * n + 3 * differing**0.5

    @property
    def differing(self) -> np.ndarray:
        """Positions of the images on which the two differ, int64."""
        return np.flatnonzero((self.kept != self.fresh) | self.clean_differs)

    def __str__(self) -> str:
        """One line for a terminal."""
        n = len(self.kept)
        line = (
            f"{self.attack}: {n} images, {np.mean(~self.kept):.1%} stand in the record, "
            f"{np.mean(~self.fresh):.1%} afresh, "
        )
        if len(self.differing):
            named = ", ".join(map(str, self.differing[:10]))
            more = ", …" if len(self.differing) > 10 else ""
            line += f"{len(self.differing)} differ (images {named}{more})"
            if self.crafted_as != self.attack.dtype:
                line += f", crafted in {self.crafted_as} here"
        else:
            line += "equal image by image"
        if self.waiting:
            line += f"; unfinished: {self.waiting} images of the record wait for restarts"
        return line


def published_run(name: str, *, folder: Path | None = None) -> runs.RunDir:
    """The run folder of a published model.

    Args:
      name: "<dataset>/<row>", as in "mnist/clp".
      folder: of the results; None: `results` of the checkout.

    Raises:
      InputError: there is no such run, with those that there are.
    """
    if not isinstance(name, str):
        raise InputError(f"a {type(name).__name__} for a published model's name: mnist/clp is one")
    root = files.expanded(folder or shipped.folder("results")) / SCALE
    run = runs.RunDir(root / name)
    if name.count("/") != 1 or not run.finished:
        known = [f"{f.parts[-3]}/{f.parts[-2]}" for f in sorted(root.glob("*/*/recipe.json"))]
        there = f"one of {', '.join(known)}" if known else f"there are none in {root}"
        raise InputError(f"no published model {name!r}: {there}")
    return run


def load_published(name: str, *, folder: Path | None = None) -> keras.Model:
    """A published model, checked against the weights and the function that its results carry.

    Args:
      name, folder: see `published_run`.

    Raises:
      InputError: there is no such model, it cannot be read, it is another one, or no result says
        which it is.
    """
    run = published_run(name, folder=folder)
    model = runs.load_model(run.model)
    recorded, found = runs.describe(run).weights, runs.weights_hash(model)
    if found != recorded:
        raise InputError(
            f"{run.model} is not the published model: its weights' hash is {found}, {run.recipe} "
            f"says {recorded}; restore it with git checkout"
        )
    _check_function(run, model)
    return model


def _check_function(run: runs.RunDir, model: keras.Model) -> None:
    """InputError when a result of the run is of another function with the same weights."""
    here = function_identity(float32_model(model), model.input_shape[1:])
    for record in records_of(run):
        difference = here.difference_from(record.settings.get("function"))
        if difference is not None:
            raise InputError(
                f"{run.model} is not the published model: it has {difference}; restore it with git "
                "checkout"
            )


def records_of(run: runs.RunDir) -> list[AttackRecord]:
    """Every result of a run that is kept, checked to be of its model.

    Raises:
      InputError: there is none, or one is damaged or of another model.
    """
    # Names with a dot are what a process that was killed while writing left behind.
    paths = sorted(run.attacks.glob("[!.]*.npz"))
    if not paths:
        raise InputError(f"{run.attacks} holds no results: restore them with git checkout")
    weights = runs.describe(run).weights
    found = []
    for path in paths:
        record = load_record(path)
        if record.settings["model"] != weights:
            raise InputError(
                f"{path} is a result of another model ({record.settings['model']}, the run's is "
                f"{weights}): restore it with git checkout"
            )
        found.append(record)
    return found


def attack_again(
    model: keras.Model,
    test: Images,
    record: AttackRecord,
    *,
    restarts: int,
    num_images: int,
    dtype: Dtype | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Comparison:
    """Makes the first restarts of a kept result afresh, on its first images.

    Args:
      model: the one that the result is of.
      test: the whole test split.
      record: what is kept.
      restarts: how many to make.
      num_images: how many of the record's images, from the first.
      dtype: to craft in; None: the record's.
      report: called after each batch.

    Raises:
      InputError: the record's images are not in the split, or have other labels there.
    """
    from alp_repro.evaluation.evaluate import evaluate

    _check_images(test, record)
    attack = dataclasses.replace(record.attack, restarts=restarts)
    crafted_as = dtype or attack.dtype
    # Each image gets the restarts that it got there: a budget would share out other ones here.
    allowed = record.allowed(restarts)[:num_images]
    fresh, clean = np.zeros((2, len(allowed)), bool)
    for count in np.unique(allowed).tolist():
        chosen = np.flatnonzero(allowed == count)
        indices = record.indices[chosen]
        found = evaluate(
            model,
            test.unit_scale[indices],
            test.labels[indices],
            attack=_afresh(attack, count, crafted_as),
            seed=record.settings["seed"],
            batch_size=record.settings["batch_size"],
            indices=indices,
            report=report,
            image_index=chosen,
        )
        fresh[chosen], clean[chosen] = ~found.standing, found.clean_correct
    first_break = record.first_break[:num_images]
    return Comparison(
        attack,
        kept=(first_break >= 0) & (first_break < allowed),
        fresh=fresh,
        clean_differs=clean != record.clean_correct[: len(allowed)],
        waiting=record.waiting,
        crafted_as=crafted_as,
    )


def _afresh(attack: Attack | Ensemble, restarts: int, dtype: Dtype) -> Attack | Ensemble:
    if isinstance(attack, Ensemble):
        attack = attack.without_budget().crafted_in(dtype)
        return dataclasses.replace(attack, restarts=restarts)
    return dataclasses.replace(attack, restarts=restarts, dtype=dtype)


def gradients_again(record: AttackRecord, *, restarts: int, num_images: int) -> int:
    """Return about how many gradients `attack_again` takes, by what the record took."""
    spent = record.restarts_spent(restarts)[:num_images]
    return int(record.attack.cost_of(spent).sum())


def _check_images(test: Images, record: AttackRecord) -> None:
    indices = record.indices
    within = indices.min() >= 0 and indices.max() < len(test.labels)
    if within:
        digest = images_digest(unit_scale(test.images[indices]), test.labels[indices])
    if not within or digest != record.settings["images"]:
        raise InputError(
            "the record's images are not those of the test split here, which was prepared from "
            f"{test.source}: results of other images cannot be checked with it"
        )
