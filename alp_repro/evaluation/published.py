"""The published runs: models and results that come with the repository, and checks of them.

results/published/<dataset>/<row>/    a run like any other, whose model and records are in git
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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
    """A stored result compared image by image with a new run of the same attack.

    Attributes:
      attack: the attack, with the restarts that were run again.
      stored, repeated: bool [n], the image was broken within these restarts, in the stored result
        and in the new run.
      clean_differs: bool [n], the image was classified correctly in only one of the two.
      waiting: the number of images of the record that are not finished.
      crafting_dtype: the crafting dtype of the new run. If it is not the record's, the attack takes
        other paths through a rugged loss surface: the accuracies agree then, single images do not.
    """

    attack: Attack | Ensemble
    stored: np.ndarray
    repeated: np.ndarray
    clean_differs: np.ndarray
    waiting: int
    crafting_dtype: Dtype

    def agrees(self, tolerance: float) -> bool:
        """Return whether the two results agree.

        Args:
          tolerance: the share of images that may differ. If the crafting dtypes differ, the
            difference of the accuracies that is allowed in addition to three standard deviations of
            chance, given the number of images that differ (McNemar).
        """
        n, differing = len(self.stored), len(self.differing)
        if self.crafting_dtype == self.attack.dtype:
            return differing <= tolerance * n
        apart = abs(int(self.stored.sum()) - int(self.repeated.sum()))
        return not self.clean_differs.any() and apart <= tolerance * n + 3 * differing**0.5

    @property
    def differing(self) -> np.ndarray:
        """The positions of the images on which the two differ, int64."""
        return np.flatnonzero((self.stored != self.repeated) | self.clean_differs)

    def __str__(self) -> str:
        """Describe the comparison in one line."""
        n = len(self.stored)
        line = (
            f"{self.attack}: {n} images, accuracy {np.mean(~self.stored):.1%} in the record, "
            f"{np.mean(~self.repeated):.1%} in the new run, "
        )
        if len(self.differing):
            named = ", ".join(map(str, self.differing[:10]))
            more = ", …" if len(self.differing) > 10 else ""
            line += f"{len(self.differing)} differ (images {named}{more})"
            if self.crafting_dtype != self.attack.dtype:
                line += f", crafted in {self.crafting_dtype} here"
        else:
            line += "equal image by image"
        if self.waiting:
            line += f"; unfinished: {self.waiting} images of the record have restarts left to run"
        return line


def published_run(name: str, *, folder: Path | None = None) -> runs.RunDir:
    """Return the run folder of a published model.

    Args:
      name: "<dataset>/<row>", as in "mnist/clp".
      folder: of the results; None: `results` of the checkout.

    Raises:
      InputError: there is no such run; the message lists the existing ones.
    """
    if not isinstance(name, str):
        raise InputError(
            f"published model: expected a name such as 'mnist/clp', got a {type(name).__name__}"
        )
    root = files.expanded(folder or shipped.folder("results")) / SCALE
    run = runs.RunDir(root / name)
    if name.count("/") != 1 or not run.finished:
        known = [f"{f.parts[-3]}/{f.parts[-2]}" for f in sorted(root.glob("*/*/recipe.json"))]
        there = f"expected one of {', '.join(known)}" if known else f"there are none in {root}"
        raise InputError(f"no published model {name!r}: {there}")
    return run


def load_published(name: str, *, folder: Path | None = None) -> keras.Model:
    """Return a published model, after comparing it with the weights and function of its results.

    Args:
      name, folder: see `published_run`.

    Raises:
      InputError: there is no such model, it cannot be read, it is not the published one, or it has
        no results to compare it with.

    Examples:
      >>> model = alp_repro.load_published("mnist/clp")
      >>> model.output_shape
      (None, 10)
    """
    run = published_run(name, folder=folder)
    return model_of(run, records_of(run))


def model_of(run: runs.RunDir, records: Sequence[AttackRecord]) -> keras.Model:
    """Return a run's model, after comparing it with the weights and function of its results.

    Raises:
      InputError: it cannot be read, or is another one.
    """
    model = runs.load_model(run.model)
    recorded, found = runs.describe(run).weights, runs.weights_hash(model)
    if found != recorded:
        raise InputError(
            f"{run.model} is not the published model: the hash of its weights is {found}, expected "
            f"{recorded} as in {run.recipe}; restore it with git checkout"
        )
    here = function_identity(float32_model(model), model.input_shape[1:])
    for record in records:
        difference = here.difference_from(record.settings.get("function"))
        if difference is not None:
            raise InputError(
                f"{run.model} is not the published model: it has {difference}; restore it with git "
                "checkout"
            )
    return model


def records_of(run: runs.RunDir) -> list[AttackRecord]:
    """Return all stored results of a run, after checking that they are of its model.

    Raises:
      InputError: there is none, or one is damaged or of another model.
    """
    paths = files.finished_files(run.attacks)
    if not paths:
        raise InputError(f"{run.attacks} has no results: restore them with git checkout")
    weights = runs.describe(run).weights
    found = []
    for path in paths:
        record = load_record(path)
        if record.settings["model"] != weights:
            raise InputError(
                f"{path} is the result of another model ({record.settings['model']}, expected "
                f"{weights}): restore it with git checkout"
            )
        found.append(record)
    return found


def rerun_attack(
    model: keras.Model,
    test: Images,
    record: AttackRecord,
    *,
    restarts: int,
    num_images: int,
    dtype: Dtype | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Comparison:
    """Run the first restarts of a stored result again, on its first images.

    Args:
      model: the model of the result.
      test: the whole test split.
      record: the stored result.
      restarts: how many to run.
      num_images: how many of the record's images, from the first.
      dtype: the crafting dtype; None: the record's.
      report: called after each batch.

    Raises:
      InputError: the record's images are not in the split, or have other labels there.
    """
    from alp_repro.evaluation.evaluate import evaluate

    _check_images(test, record)
    attack = dataclasses.replace(record.attack, restarts=restarts)
    crafting_dtype = dtype or attack.dtype
    # Each image gets the restarts that it got there: a budget would be split differently here.
    allowed = record.allowed(restarts)[:num_images]
    fresh, clean = np.zeros((2, len(allowed)), bool)
    for count in np.unique(allowed).tolist():
        chosen = np.flatnonzero(allowed == count)
        indices = record.indices[chosen]
        found = evaluate(
            model,
            test.unit_scale[indices],
            test.labels[indices],
            attack=_afresh(attack, count, crafting_dtype),
            seed=record.settings["seed"],
            batch_size=record.settings["batch_size"],
            indices=indices,
            report=report,
            image_index=chosen,
        )
        fresh[chosen], clean[chosen] = ~found.standing, found.clean_correct
    return Comparison(
        attack,
        stored=~record.standing_at(restarts)[: len(allowed)],
        repeated=fresh,
        clean_differs=clean != record.clean_correct[: len(allowed)],
        waiting=record.waiting,
        crafting_dtype=crafting_dtype,
    )


def _afresh(attack: Attack | Ensemble, restarts: int, dtype: Dtype) -> Attack | Ensemble:
    if isinstance(attack, Ensemble):
        attack = attack.without_budget().with_dtype(dtype)
        return dataclasses.replace(attack, restarts=restarts)
    return dataclasses.replace(attack, restarts=restarts, dtype=dtype)


def rerun_gradients(record: AttackRecord, *, restarts: int, num_images: int) -> int:
    """Estimate the number of gradients of `rerun_attack` from those of the record."""
    return int(record.gradients_spent(restarts)[:num_images].sum())


def _check_images(test: Images, record: AttackRecord) -> None:
    indices = record.indices
    within = indices.min() >= 0 and indices.max() < len(test.labels)
    if within:
        digest = images_digest(unit_scale(test.images[indices]), test.labels[indices])
    if not within or digest != record.settings["images"]:
        raise InputError(
            "the record's images are not those of the test split here, which was prepared from "
            f"{test.source}: the result can only be checked with its own images"
        )
