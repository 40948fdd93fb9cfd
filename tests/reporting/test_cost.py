"""What a model and its results cost: all sessions, and no more than was noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alp_repro import files
from alp_repro.evaluation import AttackRecord
from alp_repro.reporting.cost import cost_of
from alp_repro.runs import RunDir


def session(hours: float, **others: Any) -> dict[str, Any]:
    return {"cpu_seconds": 3600 * hours, "machine": "a machine", **others}


def record(*sessions: dict[str, Any]) -> AttackRecord:
    nothing = np.zeros(1, np.int32)
    return AttackRecord(
        labels=nothing,
        indices=nothing,
        clean_predictions=nothing,
        first_break=nothing,
        next_restart=nothing,
        nonfinite_gradients=nothing,
        settings={},
        sessions=list(sessions),
    )


def run(folder: Path, epochs: int, sessions: list[dict[str, Any]]) -> RunDir:
    found = RunDir(folder)
    files.write_json(found.recipe, {"recipe": {"epochs": epochs}, "sessions": sessions})
    return found


def test_all_sessions_count(tmp_path: Path) -> None:
    trained = run(tmp_path, 5, [session(1, epochs=2), session(2, epochs=3)])
    found = cost_of(trained, [record(session(0.5), session(1, machine="b")), record(session(4))])
    assert (found.training_hours, found.attack_hours) == (3, 5.5)
    assert found.machines == ("a machine", "b") and found.noted == 1
    assert str(found) == "3.00 CPU hours of training, 5.50 CPU hours of attacks (a machine; b)"


def test_epochs_that_were_not_noted_are_taken_to_have_cost_as_much(tmp_path: Path) -> None:
    found = cost_of(run(tmp_path, 500, [session(3, epochs=300)]), [])
    assert found.training_hours == pytest.approx(5) and found.noted == pytest.approx(0.6)
    assert "5.00 CPU hours of training (from 60% of its epochs)" in str(found)


@pytest.mark.parametrize("sessions", [[], [session(1), {"machine": "of before", "seconds": 3.0}]])
def test_what_was_not_noted_is_not_known(tmp_path: Path, sessions: list[dict[str, Any]]) -> None:
    found = cost_of(run(tmp_path, 5, []), [record(*sessions)])
    assert found.training_hours is None and found.attack_hours is None
    assert str(found).startswith("? CPU hours of training, ? CPU hours of attacks")
