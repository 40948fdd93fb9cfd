"""Reading and writing an attack's record, with checks of its parts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from alp_repro.attacks.phases import as_ensemble, attack_of
from alp_repro.errors import InputError
from alp_repro.evaluation.record import AttackRecord
from alp_repro.files import expanded, open_arrays, read_array, read_note, write_arrays
from alp_repro.validation.decoding import from_plain

_ARRAYS = {
    "labels": np.int32,
    "indices": np.int64,
    "clean_predictions": np.int32,
    "first_break": np.int32,
    "next_restart": np.int32,
    "nonfinite_gradients": np.int32,
}
# Arrays in the file, and attributes of the record.
_OPTIONAL = {
    "losses": "losses",
    "broken": "broken",
    "adversarial": "adversarial",
    "closest": "best_early_loss",
}


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The settings of a record that are checked; a record has more of them."""

    attack: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    batch_size: int = 1
    num_images: int = 0
    images: str = ""
    model: str = ""
    losses: bool = False
    adversarial: bool = False


def save_record(path: Path, record: AttackRecord) -> None:
    """Write a record as `.npz`, atomically; settings and sessions are JSON text in it."""
    arrays = {name: getattr(record, name) for name in _ARRAYS}
    optional = {name: getattr(record, attribute) for name, attribute in _OPTIONAL.items()}
    arrays |= {name: value for name, value in optional.items() if value is not None}
    write_arrays(path, arrays, settings=record.settings, sessions=record.sessions)


def load_record(path: str | Path) -> AttackRecord:
    """Read a record and check that its parts agree.

    Raises:
      InputError: the file is truncated or not a record, or its parts contradict each other.
    """
    path = expanded(path)
    with open_arrays(path, what="attack result") as file:
        n = len(read_array(file, "labels", np.int32, (None,)))
        arrays = {
            # Results of version 0.1 do not have all of them.
            name: read_array(file, name, dtype, (n,)) if name in file.files else np.zeros(n, dtype)
            for name, dtype in _ARRAYS.items()
            if name in file.files or name == "nonfinite_gradients"
        }
        if "losses" in file.files or "broken" in file.files:
            arrays["losses"] = read_array(file, "losses", np.float32, (n, None))
            arrays["broken"] = read_array(file, "broken", bool, arrays["losses"].shape)
        if "adversarial" in file.files:
            arrays["adversarial"] = read_array(
                file, "adversarial", np.float32, (n, None, None, None)
            )
        if "closest" in file.files:
            arrays["best_early_loss"] = read_array(file, "closest", np.float32, (n,))
        record = AttackRecord(
            **arrays,
            settings=read_note(file, "settings"),
            sessions=read_note(file, "sessions", list[dict[str, Any]]),
        )
        _check(record)
        return record


def _check(found: AttackRecord) -> None:
    """Raise InputError on values that no evaluation writes; the caller adds the file's name."""
    if not len(found.labels):
        raise InputError("it has no images")
    for name in ("labels", "indices", "clean_predictions", "next_restart", "nonfinite_gradients"):
        if getattr(found, name).min() < 0:
            raise InputError(f"{name} has a negative entry")
    if found.first_break.min() < -1 or np.any(found.first_break >= found.next_restart):
        raise InputError("first_break has restarts that were not run")
    if found.losses is not None and found.broken is not None:
        _check_losses(found, found.losses, found.broken)
    if found.adversarial is not None:
        pixels = found.adversarial
        # A comparison with NaN is false, so NaN is refused too.
        if not (np.all(pixels >= 0) and np.all(pixels <= 1)):
            raise InputError("adversarial has pixels outside [0, 1]")
        if pixels[found.standing].any():
            raise InputError("adversarial has images that are unbroken according to first_break")
    if found.best_early_loss is not None and not np.all(found.best_early_loss >= 0):
        raise InputError("closest has entries that are not losses of 0 or more")
    _check_settings(found)


def _check_losses(record: AttackRecord, losses: np.ndarray, broken: np.ndarray) -> None:
    if record.next_restart.max() > losses.shape[1]:
        raise InputError("losses has fewer restarts than were run")
    run = np.arange(losses.shape[1]) < record.next_restart[:, None]
    if not np.isfinite(losses[run]).all():
        raise InputError("losses has values that are not finite where a restart was run")
    hit = broken & run
    first = np.where(hit.any(axis=1), hit.argmax(axis=1), -1) if hit.size else -1
    if np.any(first != record.first_break):
        raise InputError("first_break contradicts broken")


def _check_settings(record: AttackRecord) -> None:
    settings = from_plain(record.settings, _Settings, source="the settings", extra_keys=True)
    attack = settings.attack
    runs_before_budget = as_ensemble(attack_of(attack)).runs_before_budget if attack else 0
    if (record.best_early_loss is None) != (runs_before_budget == 0):
        raise InputError("expected the array closest if, and only if, the attack has a budget")
    for name, value in {
        "num_images": len(record.labels),
        "losses": record.losses is not None,
        "adversarial": record.adversarial is not None,
    }.items():
        if name in record.settings and record.settings[name] != value:
            raise InputError(f"the settings and the arrays have different {name}")
