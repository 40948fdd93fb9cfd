"""What was spent on a model and its results, from what they say of themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alp_repro import files, runs

if TYPE_CHECKING:
    from alp_repro.evaluation import AttackRecord

Session = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Cost:
    """CPU hours of a training and of attacks, and on what machines; None: not noted.

    `noted`: the share of the training's epochs that its hours were noted of, the others taken to
    have cost as much.
    """

    training_hours: float | None
    attack_hours: float | None
    machines: tuple[str, ...]
    noted: float = 1.0

    def __str__(self) -> str:
        """One line."""
        machines = "; ".join(self.machines) or "unknown"
        part = f" (from {self.noted:.0%} of its epochs)" if self.noted < 1 else ""
        return (
            f"{_hours(self.training_hours)} CPU hours training{part}, "
            f"{_hours(self.attack_hours)} CPU hours attacks ({machines})"
        )


def cost_of(run: runs.RunDir, records: Sequence[AttackRecord]) -> Cost:
    """What a finished run and some of its results cost."""
    told = files.read_json(run.recipe)
    training: list[Session] = told.get("sessions") or []
    attacks: list[Session] = [session for record in records for session in record.sessions]
    seconds, epochs = _cpu_seconds(training), told.get("recipe", {}).get("epochs")
    noted = 1.0
    if seconds is not None and epochs:
        # A state that was begun by a version without notes, or an epoch that was begun twice.
        noted = min(1.0, sum(session.get("epochs", 0) for session in training) / epochs)
        seconds = seconds / noted if noted else None
    places = [told.get("machine"), *(session.get("machine") for session in (*training, *attacks))]
    attacking = _cpu_seconds(attacks)
    return Cost(
        training_hours=None if seconds is None else seconds / 3600,
        attack_hours=None if attacking is None else attacking / 3600,
        machines=tuple(dict.fromkeys(str(place) for place in places if place)),
        noted=noted,
    )


def _cpu_seconds(sessions: Sequence[Session]) -> float | None:
    """Of all; None where one did not note it, as those of earlier versions."""
    found = [session.get("cpu_seconds") for session in sessions]
    known = [float(one) for one in found if isinstance(one, int | float)]
    return sum(known) if known and len(known) == len(found) else None


def _hours(hours: float | None) -> str:
    return "?" if hours is None else f"{hours:.2f}"
