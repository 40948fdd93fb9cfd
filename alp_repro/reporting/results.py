"""Finds a run's results that match its current model, images and recipe."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, attack_file_name
from alp_repro.evaluation.record_file import load_record
from alp_repro.evaluation.store import attack_settings
from alp_repro.models.copies import float32_model
from alp_repro.models.file_identity import file_identity
from alp_repro.models.identity import FunctionIdentity, architecture_of, function_identity
from alp_repro.training.ownership import Owner, check_owner

if TYPE_CHECKING:
    from alp_repro.attacks import Attack, Ensemble
    from alp_repro.training import Recipe

ImagesDigest = Callable[[int], str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultQuery:
    """The requirements on a result to be shown.

    Attributes:
      num_images: number of evaluation images.
      seed: of the attack.
      digest_of: count -> digest of the first `count` evaluation images of the current data set;
        None, as a function or its result: not known here, so it is not compared.
      recipe: the model's recipe; None: any.
    """

    num_images: int
    seed: int = 0
    digest_of: ImagesDigest | None = None
    recipe: Recipe | None = None

    def digest(self, num_images: int) -> str | None:
        """Return the digest of the first `num_images` images; None: not known."""
        return self.digest_of(num_images) if self.digest_of else None


@dataclasses.dataclass(frozen=True)
class QueryResult:
    """A result to show, or why an existing one must not be shown ("": there is none)."""

    record: AttackRecord | None
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class _Model:
    """The identity of a model: its weights and, if a result needs it, its function.

    architecture: hash of the layers, if it is known from the file alone.
    """

    path: Path
    weights: str
    architecture: str | None

    def difference_from(self, kept: Any) -> str | None:
        """Describe how its function differs from a result's; None if it does not.

        Plain layers with these settings and weights need no computation.
        """
        if self.architecture is not None and self.architecture == architecture_of(kept):
            return None
        return self._function.difference_from(kept)

    @functools.cached_property
    def _function(self) -> FunctionIdentity:
        model = runs.load_model(self.path)
        return function_identity(float32_model(model), model.input_shape[1:])


def weights_now(run: runs.RunDir) -> str:
    """Return the hash of the weights in a run's model.keras; read once until the file changes."""
    return _model(run).weights


def _model(run: runs.RunDir) -> _Model:
    stat = run.model.stat()
    return _load(run, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=16)  # the rows of a table
def _load(run: runs.RunDir, _changed: int, _size: int) -> _Model:
    found = file_identity(run.model)
    # If it does not match, the model itself is loaded to be certain.
    if found is not None and run.recipe.exists() and found.weights == runs.describe(run).weights:
        return _Model(run.model, found.weights, found.architecture)
    return _Model(run.model, runs.weights_hash(runs.load_model(run.model)), None)


def run_problem(run: runs.RunDir, recipe: Recipe | None = None) -> str:
    """Return why a finished run must not be shown; "" if its parts match.

    Args:
      run: a finished run.
      recipe: the expected recipe; None, or an imported model: not compared.

    Raises:
      InputError: model.keras or recipe.json is damaged.
    """
    description = runs.describe(run)
    if description.weights != weights_now(run):
        return (
            f"model.keras is not the model of recipe.json (its weights have the hash "
            f"{weights_now(run)}, expected {description.weights})"
        )
    if recipe is None or description.imported is not None:
        return ""
    try:
        check_owner(run, Owner(recipe))
    except InputError as error:
        return str(error)
    return ""


def find_result(run: runs.RunDir, attack: Attack | Ensemble, wanted: ResultQuery) -> QueryResult:
    """Return the result of an attack on a run's model with the most restarts.

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
    return QueryResult(best, "" if best is not None else problem)


def find_further(
    run: runs.RunDir, attack: Attack | Ensemble, wanted: ResultQuery
) -> AttackRecord | None:
    """Return a result of the same attack on fewer images with more restarts, if there is one."""
    further = [
        record
        for record in _records(run, attack, wanted)
        if record.settings["num_images"] < wanted.num_images
        and reach(record) > attack.restarts
        and not _record_problem(run, record, wanted)
    ]
    return max(further, key=lambda record: (len(record.labels), reach(record)), default=None)


def find_mean(run: runs.RunDir, attack: Attack | Ensemble, wanted: ResultQuery) -> float | None:
    """Return the mean adversarial accuracy over restarts, in percent; None without losses."""
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
    """Return the number of restarts that every counted image has had."""
    counted = record.standing if record.losses is None else record.next_restart >= 0
    return int(record.next_restart[counted].min()) if counted.any() else 10**9


def _preference(record: AttackRecord, attack: Attack | Ensemble) -> tuple[bool, bool, int]:
    # Of two complete results, the one without losses; the other one has the same numbers.
    return record.complete_to(attack.restarts), record.losses is None, reach(record)


def _records(
    run: runs.RunDir, attack: Attack | Ensemble, wanted: ResultQuery
) -> Iterator[AttackRecord]:
    """Yield the results of an attack and a seed, of any model and images."""
    asked = {"attack": files.as_json_data(attack_settings(attack)), "seed": wanted.seed}
    name = attack_file_name({**asked, "num_images": 0})
    beginning = name.rpartition("_images")[0] + "_images"
    for path in files.finished_files(run.attacks):
        if path.name.startswith(beginning):
            record = load_record(path)
            if {key: record.settings.get(key) for key in asked} == asked:
                yield record


def _record_problem(run: runs.RunDir, record: AttackRecord, wanted: ResultQuery) -> str:
    """Return why a result must not be shown for a run's model and images; "" if it may."""
    if record.settings.get("model") != weights_now(run):
        return "its result is of another model (the weights differ)"
    function = record.settings.get("function")
    if function is not None:
        difference = _model(run).difference_from(function)
        if difference is not None:
            return f"its result is of another model ({difference})"
    digest = wanted.digest(len(record.labels))
    if digest is not None and record.settings.get("images") != digest:
        return "its result is of other images than those of the current data set"
    return ""
