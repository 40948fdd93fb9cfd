"""The computing time of a model and its results, from their provenance."""

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
    """CPU hours of a training and of attacks, and the machines; None: not recorded.

    `noted`: the share of the training's epochs whose hours were recorded; the others are assumed to
    have taken as long.
    """

    training_hours: float | None
    attack_hours: float | None
    machines: tuple[str, ...]
    noted: float = 1.0

    def __str__(self) -> str:
        """Describe it in one line."""
        machines = "; ".join(self.machines) or "unknown"
        part = f" (from {self.noted:.0%} of its epochs)" if self.noted < 1 else ""
        return (
            f"{_hours(self.training_hours)} CPU hours of training{part}, "
            f"{_hours(self.attack_hours)} CPU hours of attacks ({machines})"
        )


def cost_of(run: runs.RunDir, records: Sequence[AttackRecord]) -> Cost:
    """Return the cost of a finished run and some of its results."""
    recipe = files.read_json(run.recipe)
    training: list[Session] = recipe.get("sessions") or []
    attacks: list[Session] = [session for record in records for session in record.sessions]
    seconds, epochs = _cpu_seconds(training), recipe.get("recipe", {}).get("epochs")
    noted = 1.0
    if seconds is not None and epochs:
        # An earlier version recorded nothing, and an epoch may have been started twice.
        noted = min(1.0, sum(session.get("epochs", 0) for session in training) / epochs)
        seconds = seconds / noted if noted else None
    places = [recipe.get("machine"), *(session.get("machine") for session in (*training, *attacks))]
    attacking = _cpu_seconds(attacks)
    return Cost(
        training_hours=None if seconds is None else seconds / 3600,
        attack_hours=None if attacking is None else attacking / 3600,
        machines=tuple(dict.fromkeys(str(place) for place in places if place)),
        noted=noted,
    )


def _cpu_seconds(sessions: Sequence[Session]) -> float | None:
    """Return the CPU seconds of all sessions; None if one has no record, as in earlier versions."""
    found = [session.get("cpu_seconds") for session in sessions]
    known = [float(one) for one in found if isinstance(one, int | float)]
    return sum(known) if known and len(known) == len(found) else None


def _hours(hours: float | None) -> str:
    return "?" if hours is None else f"{hours:.2f}"
