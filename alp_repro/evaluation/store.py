"""Where the result of an attack lies, and how it is found, begun or gone on with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alp_repro import files, runs
from alp_repro.attacks.settings import Attack
from alp_repro.errors import InputError
from alp_repro.evaluation.record import AttackRecord, load_record, save_record
from alp_repro.model_identity import FunctionIdentity


def attack_name(settings: dict[str, Any]) -> str:
    """File name of a result: what a reader looks for, and eight digits of all that matters.

    Restarts are left out: a result grows with them.
    """
    attack = settings["attack"]
    parts = [
        attack["method"],
        f"eps{attack['eps'] * 255:g}",
        f"step{attack['eps_iter'] * 255:g}",
        f"n{attack['nb_iter']}",
        *_departures_in_name(attack),
        f"images{settings['num_images']}",
        *(["losses"] if settings.get("losses") else []),
    ]
    # The model is left out: a result of another model at this place is to be noticed.
    identity = {key: v for key, v in settings.items() if key not in ("model", "function")}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join(parts) + f"_{digest}.npz"


# How names have told these since results were first kept; later fields are told as name-value.
_IN_NAMES = {
    **dict.fromkeys(("method", "eps", "eps_iter", "nb_iter", "restarts"), ""),  # said before
    **dict.fromkeys(("momentum", "gradient_noise", "success", "random_start", "engine"), ""),
    **dict.fromkeys(("loss", "step_schedule", "dtype"), "{value}"),
    "target": "target-{value}",
}


def _departures_in_name(attack: dict[str, Any]) -> list[str]:
    """What a file's name tells of how an attack, as stored, differs from the paper's."""
    papers = {field.name: field.default for field in dataclasses.fields(Attack)}
    told = []
    for name, value in attack.items():
        form = _IN_NAMES.get(name, f"{name}-{{value}}")
        if form and (name not in papers or value != papers[name]):
            told.append(form.format(value=f"{value:g}" if isinstance(value, float) else value))
    return told


def find_record(
    run: runs.RunDir,
    *,
    attack: Attack,
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
    wanted = files.plain(
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


def on_disk(
    path: Path,
    settings: dict[str, Any],
    attack: Attack,
    fresh: Callable[[], AttackRecord],
    run: Callable[[AttackRecord, Callable[[AttackRecord], None]], AttackRecord],
    details: dict[str, Any],
) -> AttackRecord:
    """Loads, goes on with, or begins the result at `path`; one process at a time works on it."""
    with files.exclusive(path):
        record = _matching(path, settings) if path.exists() else fresh()
        if record.complete_to(attack.restarts):
            return record
        session = {**runs.provenance(), **details, "restarts": attack.restarts}
        earlier, started = record.sessions, time.monotonic()

        def save(current: AttackRecord) -> None:
            spent = {"seconds": round(time.monotonic() - started, 1)}
            save_record(
                path, dataclasses.replace(current, sessions=[*earlier, {**session, **spent}])
            )

        run(record, save)
        return load_record(path)


def _matching(path: Path, settings: dict[str, Any]) -> AttackRecord:
    record = load_record(path)
    function = FunctionIdentity(**settings["function"])
    difference = function.difference_from(record.settings.get("function"))
    for key, value in files.plain(settings).items():
        if key != "function" and record.settings.get(key) != value:
            what = {"model": "another model (its weights differ)"}.get(key, f"another {key}")
            raise InputError(
                f"{path} is the result of {what}: {record.settings.get(key)!r} there, {value!r} "
                "here; move it away to have it computed again"
            )
    if difference is not None:
        raise InputError(
            f"{path} is the result of another model ({difference}): move it away to have it "
            "computed again"
        )
    # A result of a time before functions were noted gets its model's when it is gone on with.
    return dataclasses.replace(record, settings={**settings, **record.settings})


def described(attack: Attack) -> dict[str, Any]:
    """An attack without its restarts, which a result can be given more of."""
    described = attack.to_json()
    del described["restarts"]
    return described
