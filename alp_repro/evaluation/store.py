"""Storage of results: where each kind is stored, and how it is loaded, continued or computed.

Settings → digest → file name → lock → load, continue or compute → save with provenance. The arrays
of each kind are defined in its own module (`record`, `heat_maps`, `landscape`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from alp_repro import files, runs
from alp_repro.attacks.base import Attack
from alp_repro.attacks.pgd import PGD
from alp_repro.attacks.phases import Ensemble
from alp_repro.data.images import images_digest
from alp_repro.errors import InputError
from alp_repro.evaluation.record import AttackRecord
from alp_repro.evaluation.record_file import load_record, save_record
from alp_repro.models.identity import FunctionIdentity, function_identity
from alp_repro.system.effort import Stopwatch

if TYPE_CHECKING:
    import keras

# Left out of a file's name, so that a result of another model in the same folder is noticed.
MODEL_SETTINGS = ("model", "function")


# A result: a dataclass with `settings`, and `sessions` for the provenance of each process.
R = TypeVar("R", bound=Any)
Save = Callable[[R], None]


@dataclasses.dataclass(frozen=True)
class ResultFormat:
    """Functions that load and save results of one kind, and tell whether they are complete."""

    load: Callable[[Path], Any]
    save: Callable[[Path, Any], None]
    complete: Callable[[Any], bool]


def load_or_compute(
    path: Path,
    kind: ResultFormat,
    *,
    settings: dict[str, Any],
    fresh: Callable[[], R],
    work: Callable[[R, Save[R]], R],
    details: dict[str, Any] | None = None,
    notes: Callable[[], dict[str, Any]] = dict,
) -> R:
    """Load, continue, or compute the result at `path`, in one process at a time.

    Args:
      path: of the result; see `result_file_name`.
      kind: its format.
      settings: its settings; a stored result with other settings is refused.
      fresh: returns a new, empty result.
      work: completes a result, given the result and a function that saves it with its provenance.
      details: further provenance.
      notes: called at each save: provenance that is known only during the work.

    Raises:
      InputError: the stored result is damaged, belongs to something else or is in use by another
        process.
    """
    if path.exists():  # a complete result is read without a lock, even in a read-only folder
        complete = _matching(path, kind.load(path), settings)
        if kind.complete(complete):
            return complete
    with files.exclusive(path):
        found = _matching(path, kind.load(path), settings) if path.exists() else fresh()
        if kind.complete(found):
            return found
        session = {**runs.provenance(), **(details or {})}
        earlier, clock = found.sessions, Stopwatch()

        def save(current: R) -> None:
            sessions = [*earlier, {**session, **notes(), **clock.spent()}]
            kind.save(path, dataclasses.replace(current, sessions=sessions))

        work(found, save)
        return kind.load(path)


def _matching(path: Path, found: R, settings: dict[str, Any]) -> R:
    difference = None
    if "function" in settings:
        function = FunctionIdentity(**settings["function"])
        difference = function.difference_from(found.settings.get("function"))
    for key, value in files.as_json_data(settings).items():
        if key != "function" and found.settings.get(key) != value:
            what = {"model": "another model (its weights differ)"}.get(key, f"another {key}")
            raise InputError(
                f"{path} is the result of {what}: it has {_short(found.settings.get(key))}, "
                f"expected {_short(value)}; move it away to compute it again"
            )
    if difference is not None:
        raise InputError(
            f"{path} is the result of another model ({difference}): move it away to compute it "
            "again"
        )
    # A result from before functions were recorded gets its model's when it is continued.
    return dataclasses.replace(found, settings={**settings, **found.settings})


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


def result_file_name(
    parts: Sequence[str], settings: dict[str, Any], *, leaving_out: Collection[str] = MODEL_SETTINGS
) -> str:
    """Return a file name: readable parts, and eight digits of a digest of the settings."""
    identity = {key: value for key, value in settings.items() if key not in leaving_out}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join([*parts, digest]) + ".npz"


def subject_settings(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, verdict_model: keras.Model
) -> dict[str, Any]:
    """Return the part of a result's settings that identifies the images, labels and model.

    Args:
      model: float32 images in [0, 1] to logits.
      images: float32 [n, height, width, channels].
      labels: int [n].
      verdict_model: the model in float32, see `model_check.validate_model`.
    """
    function = function_identity(verdict_model, images.shape[1:])
    return {
        "num_images": len(labels),
        "images": images_digest(images, labels),
        "model": runs.weights_hash(model),
        "function": files.as_json_data(dataclasses.asdict(function)),
    }


# Results of attacks


def attack_file_name(settings: dict[str, Any]) -> str:
    """Return the file name of an attack's result, without restarts: more can be added later."""
    attack = settings["attack"]
    parts = [
        attack["method"],
        f"eps{attack['eps'] * 255:g}",
        *([f"step{attack['eps_iter'] * 255:g}"] if "eps_iter" in attack else []),
        *([f"n{attack['nb_iter']}"] if "nb_iter" in attack else []),
        *_non_default_in_name(attack),
        f"images{settings['num_images']}",
        *(["losses"] if settings.get("losses") else []),
    ]
    return result_file_name(parts, settings)


# The form of these settings in file names, since the first version; others are name-value.
_IN_NAMES = {
    **dict.fromkeys(("method", "eps", "eps_iter", "nb_iter", "restarts"), ""),  # said before
    **dict.fromkeys(("momentum", "gradient_noise", "success", "random_start", "engine"), ""),
    **dict.fromkeys(("loss", "step_schedule", "dtype"), "{value}"),
    "target": "target-{value}",
    "phases": "",
}


def _non_default_in_name(attack: dict[str, Any]) -> list[str]:
    """Return the parts of a file name for settings that differ from the paper's attack."""
    papers = {field.name: field.default for field in dataclasses.fields(PGD)}
    parts = []
    for name, value in attack.items():
        form = _IN_NAMES.get(name, f"{name}-{{value}}")
        if form and (name not in papers or value != papers[name]):
            parts.append(form.format(value=f"{value:g}" if isinstance(value, float) else value))
    return parts


def find_record(
    run: runs.RunDir,
    *,
    attack: Attack | Ensemble,
    num_images: int,
    seed: int = 0,
    record_losses: bool = False,
) -> AttackRecord | None:
    """Return the stored result of this attack on the run's model, or None.

    The result may be unfinished.

    Raises:
      InputError: a result of the run is damaged.
    """
    if not (run.finished and run.attacks.exists()):
        return None
    wanted = files.as_json_data(
        {
            "attack": attack_settings(attack),
            "num_images": num_images,
            "seed": seed,
            "losses": record_losses,
            "model": files.read_json(run.recipe)["weights"],
        }
    )
    for path in files.finished_files(run.attacks):
        record = load_record(path)
        if {key: record.settings.get(key) for key in wanted} == wanted:
            return record
    return None


def attack_result_format(attack: Attack | Ensemble) -> ResultFormat:
    """Return the format of an attack's results, which are complete if they have its restarts."""
    return ResultFormat(
        load_record, save_record, lambda record: record.complete_to(attack.restarts)
    )


def attack_settings(attack: Attack | Ensemble) -> dict[str, Any]:
    """Return an attack's stored settings without restarts, since more can be added later."""
    described = attack.to_json()
    del described["restarts"]
    return described
