"""Where results lie, and how each is found, begun or continued: for every kind the same way.

Settings → digest → file name → lock → load, go on or begin → save with provenance. What the arrays
of a result are is its own module's business (`record`, `heat_maps`, `landscape`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

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

# Left out of a file's name, so that a result of another model at this place is noticed.
OF_THE_MODEL = ("model", "function")


class Kept(Protocol):
    """A result on disk: a dataclass with what makes it and who worked on it."""

    @property
    def settings(self) -> dict[str, Any]:
        """What makes this result."""

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Provenance of every process that worked on it."""


R = TypeVar("R", bound=Any)
Save = Callable[[R], None]


@dataclasses.dataclass(frozen=True)
class Kind:
    """How results of one kind are read, written, and known to be complete."""

    load: Callable[[Path], Any]
    save: Callable[[Path, Any], None]
    complete: Callable[[Any], bool]


def keep(
    path: Path,
    kind: Kind,
    *,
    settings: dict[str, Any],
    fresh: Callable[[], R],
    work: Callable[[R, Save[R]], R],
    details: dict[str, Any] | None = None,
    notes: Callable[[], dict[str, Any]] = dict,
) -> R:
    """Loads, goes on with, or begins the result at `path`; one process at a time works on it.

    Args:
      path: where it lies; see `result_name`.
      kind: what it is.
      settings: what makes it; a result there that differs in one of them is refused.
      fresh: begins one.
      work: completes one; it is given the function that saves it, with provenance, as it goes.
      details: further provenance.
      notes: asked whenever the result is saved: provenance that only the work brings to light.

    Raises:
      InputError: what is there is damaged, belongs to something else or is being worked on.
    """
    if path.exists():  # reading what is complete needs no lock, so that a read-only folder will do
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
                f"{path} is the result of {what}: {_short(found.settings.get(key))} there, "
                f"{_short(value)} here; move it away to have it computed again"
            )
    if difference is not None:
        raise InputError(
            f"{path} is the result of another model ({difference}): move it away to have it "
            "computed again"
        )
    # A result of a time before functions were noted gets its model's when it is continued.
    return dataclasses.replace(found, settings={**settings, **found.settings})


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


def result_name(
    parts: Sequence[str], settings: dict[str, Any], *, leaving_out: Collection[str] = OF_THE_MODEL
) -> str:
    """A file's name: what a reader looks for, and eight digits of all that matters."""
    identity = {key: value for key, value in settings.items() if key not in leaving_out}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join([*parts, digest]) + ".npz"


def subject(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, judge: keras.Model
) -> dict[str, Any]:
    """What a result is of, for its settings: the images and labels, and the model as a function.

    Args:
      model: float32 images in [0, 1] to logits.
      images: float32 [n, height, width, channels].
      labels: int [n].
      judge: the model in float32, see `model_check.admitted_model`.
    """
    function = function_identity(judge, images.shape[1:])
    return {
        "num_images": len(labels),
        "images": images_digest(images, labels),
        "model": runs.weights_hash(model),
        "function": files.as_json_data(dataclasses.asdict(function)),
    }


# Results of attacks


def attack_name(settings: dict[str, Any]) -> str:
    """File name of an attack's result. Restarts are left out: a result grows with them."""
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
    return result_name(parts, settings)


# How names have told these since results were first kept; later fields are told as name-value.
_IN_NAMES = {
    **dict.fromkeys(("method", "eps", "eps_iter", "nb_iter", "restarts"), ""),  # said before
    **dict.fromkeys(("momentum", "gradient_noise", "success", "random_start", "engine"), ""),
    **dict.fromkeys(("loss", "step_schedule", "dtype"), "{value}"),
    "target": "target-{value}",
    "phases": "",
}


def _non_default_in_name(attack: dict[str, Any]) -> list[str]:
    """What a file's name tells of how an attack, as stored, differs from the paper's."""
    papers = {field.name: field.default for field in dataclasses.fields(PGD)}
    told = []
    for name, value in attack.items():
        form = _IN_NAMES.get(name, f"{name}-{{value}}")
        if form and (name not in papers or value != papers[name]):
            told.append(form.format(value=f"{value:g}" if isinstance(value, float) else value))
    return told


def find_record(
    run: runs.RunDir,
    *,
    attack: Attack | Ensemble,
    num_images: int,
    seed: int = 0,
    record_losses: bool = False,
) -> AttackRecord | None:
    """The result of this attack on the run's model, as far as it has come; None: there is none.

    Raises:
      InputError: a result there is damaged.
    """
    if not (run.finished and run.attacks.exists()):
        return None
    wanted = files.as_json_data(
        {
            "attack": described(attack),
            "num_images": num_images,
            "seed": seed,
            "losses": record_losses,
            "model": files.read_json(run.recipe)["weights"],
        }
    )
    # Names with a dot are what a process that was killed while writing left behind.
    for path in sorted(run.attacks.glob("[!.]*.npz")):
        record = load_record(path)
        if {key: record.settings.get(key) for key in wanted} == wanted:
            return record
    return None


def attack_results(attack: Attack | Ensemble) -> Kind:
    """Results of an attack, complete when they reach its restarts."""
    return Kind(load_record, save_record, lambda record: record.complete_to(attack.restarts))


def described(attack: Attack | Ensemble) -> dict[str, Any]:
    """An attack without its restarts, which a result can be given more of."""
    described = attack.to_json()
    del described["restarts"]
    return described
