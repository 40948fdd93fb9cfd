"""Which of a run's results may be shown: those of its model, images and recipe as they are now."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, attack_name
from alp_repro.evaluation.record_file import load_record
from alp_repro.evaluation.store import described
from alp_repro.models.copies import float32_model
from alp_repro.models.file_identity import file_identity
from alp_repro.models.identity import FunctionIdentity, architecture_of, function_identity
from alp_repro.training.ownership import Owner, check_owner

if TYPE_CHECKING:
    from alp_repro.attacks import Attack, Ensemble
    from alp_repro.training import Recipe

ImagesDigest = Callable[[int], str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a result must have been made from to be shown.

    Attributes:
      num_images: evaluation images.
      seed: of the attack.
      digest_of: count -> digest of the first so many evaluation images as the data set has them
        now; None, as a function or from it: it cannot be told here, so nothing is compared.
      recipe: what the model must have been trained with; None: whatever it was.
    """

    num_images: int
    seed: int = 0
    digest_of: ImagesDigest | None = None
    recipe: Recipe | None = None

    def digest(self, num_images: int) -> str | None:
        """Of the first so many images; None: not known."""
        return self.digest_of(num_images) if self.digest_of else None


@dataclasses.dataclass(frozen=True)
class Found:
    """A result that may be shown, or why one that is there may not be ("": there is none)."""

    record: AttackRecord | None
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class _Model:
    """What tells a model: its weights and, where a result asks for it, its function.

    architecture: hash of the layers, where the file alone tells it.
    """

    path: Path
    weights: str
    architecture: str | None

    def difference_from(self, kept: Any) -> str | None:
        """How its function differs from the one of a result; None: not at all.

        Plain layers of these settings with these weights are one function: nothing to compute.
        """
        if self.architecture is not None and self.architecture == architecture_of(kept):
            return None
        return self._function.difference_from(kept)

    @functools.cached_property
    def _function(self) -> FunctionIdentity:
        model = runs.load_model(self.path)
        return function_identity(float32_model(model), model.input_shape[1:])


def weights_now(run: runs.RunDir) -> str:
    """Hash of the weights in a run's model.keras as it is now; read once while it stays."""
    return _model(run).weights


def _model(run: runs.RunDir) -> _Model:
    stat = run.model.stat()
    return _load(run, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=16)  # the rows of a table
def _load(run: runs.RunDir, _changed: int, _size: int) -> _Model:
    found = file_identity(run.model)
    # What is refused is refused on the word of the model itself.
    if found is not None and run.recipe.exists() and found.weights == runs.describe(run).weights:
        return _Model(run.model, found.weights, found.architecture)
    return _Model(run.model, runs.weights_hash(runs.load_model(run.model)), None)


def run_problem(run: runs.RunDir, recipe: Recipe | None = None) -> str:
    """Why nothing of a finished run may be shown; "" when its parts belong together.

    Args:
      run: a finished run.
      recipe: what it must have been trained with; None, or an imported model: not compared.

    Raises:
      InputError: model.keras or recipe.json is damaged.
    """
    told = runs.describe(run)
    if told.weights != weights_now(run):
        return (
            f"model.keras is not the model that recipe.json tells of (weights {weights_now(run)}, "
            f"{told.weights} there)"
        )
    if recipe is None or told.imported is not None:
        return ""
    try:
        check_owner(run, Owner(recipe))
    except InputError as error:
        return str(error)
    return ""


def find_result(run: runs.RunDir, attack: Attack | Ensemble, wanted: Wanted) -> Found:
    """The result of an attack on a run's model that reaches furthest.

    Raises:
      InputError: a result there is damaged.
    """
    best, problem = None, ""
    for record in _records(run, attack, wanted):
        if record.settings["num_images"] != wanted.num_images:
            continue
        why = _record_problem(run, record, wanted)
        problem = problem or why
        if not why and (best is None or _preference(record, attack) > _preference(best, attack)):
            best = record
    return Found(best, "" if best is not None else problem)


def find_further(
    run: runs.RunDir, attack: Attack | Ensemble, wanted: Wanted
) -> AttackRecord | None:
    """A result of the same attack on fewer of the images that has seen more restarts, if any."""
    further = [
        record
        for record in _records(run, attack, wanted)
        if record.settings["num_images"] < wanted.num_images
        and reach(record) > attack.restarts
        and not _record_problem(run, record, wanted)
    ]
    return max(further, key=lambda record: (len(record.labels), reach(record)), default=None)


def find_mean(run: runs.RunDir, attack: Attack | Ensemble, wanted: Wanted) -> float | None:
    """Mean over restarts of the adversarial accuracy, in percent, where losses were recorded."""
    for record in _records(run, attack, wanted):
        if (
            record.broken is not None
            and record.settings["num_images"] == wanted.num_images
            and record.complete_to(attack.restarts)
            and not _record_problem(run, record, wanted)
        ):
            return 100 * record.mean_accuracy(attack.restarts)
    return None


def reach(record: AttackRecord) -> int:
    """How many restarts every image that counts has seen."""
    counted = record.standing if record.losses is None else record.next_restart >= 0
    return int(record.next_restart[counted].min()) if counted.any() else 10**9


def _preference(record: AttackRecord, attack: Attack | Ensemble) -> tuple[bool, bool, int]:
    # Of two complete ones the plain one, as ever; one with recorded losses says the same.
    return record.complete_to(attack.restarts), record.losses is None, reach(record)


def _records(run: runs.RunDir, attack: Attack | Ensemble, wanted: Wanted) -> Iterator[AttackRecord]:
    """Results of an attack and a seed, whatever model and images they are of."""
    asked = {"attack": files.plain(described(attack)), "seed": wanted.seed}
    name = attack_name({**asked, "num_images": 0})
    beginning = name.rpartition("_images")[0] + "_images"
    # Names with a dot are what a process that was killed while writing left behind.
    for path in sorted(run.attacks.glob("[!.]*.npz")):
        if path.name.startswith(beginning):
            record = load_record(path)
            if {key: record.settings.get(key) for key in asked} == asked:
                yield record


def _record_problem(run: runs.RunDir, record: AttackRecord, wanted: Wanted) -> str:
    """Why a result may not be shown for a run's model and images; "" when it may."""
    if record.settings.get("model") != weights_now(run):
        return "its result is of another model (the weights differ)"
    function = record.settings.get("function")
    if function is not None:
        difference = _model(run).difference_from(function)
        if difference is not None:
            return f"its result is of another model ({difference})"
    digest = wanted.digest(len(record.labels))
    if digest is not None and record.settings.get("images") != digest:
        return "its result is of other images than the data set has now"
    return ""
