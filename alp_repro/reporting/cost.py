"""What was spent on a model and its results, from what they say of themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from alp_repro import files, runs
from alp_repro.evaluation import AttackRecord


@dataclasses.dataclass(frozen=True)
class Cost:
    """Wall-clock hours of a training (its last session) and of attacks, and on what machines."""

    training_hours: float | None
    attack_hours: float
    machines: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        training = "?" if self.training_hours is None else f"{self.training_hours:.2f}"
        machines = "; ".join(self.machines) or "unknown"
        return f"{training} h training, {self.attack_hours:.2f} h attacks ({machines})"


def cost_of(run: runs.RunDir, records: Sequence[AttackRecord]) -> Cost:
    """What a finished run and some of its results cost."""
    told = files.read_json(run.recipe)
    sessions = [session for record in records for session in record.sessions]
    seconds = _number(told.get("seconds", told.get("seconds_of_last_session")))
    places = [told.get("machine"), *(session.get("machine") for session in sessions)]
    return Cost(
        training_hours=None if seconds is None else seconds / 3600,
        attack_hours=sum(_number(session.get("seconds")) or 0.0 for session in sessions) / 3600,
        machines=tuple(dict.fromkeys(str(place) for place in places if place)),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
