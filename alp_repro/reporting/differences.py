"""Where our numbers differ from the paper's by more than the interval, and what may explain it.

The explanations are facts that lie beside the numbers: what was done otherwise, how far a number
moves while its training goes on, and between trainings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.reporting.table_files import sample_text
from alp_repro.training.log import read_log

if TYPE_CHECKING:
    from alp_repro.reporting.spread import Spread
    from alp_repro.reporting.stored_tables import StoredTable
    from alp_repro.reporting.tables import Cell, TableRow

_FEWEST_LOOKS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A number of the paper's that lies outside our interval.

    what: the model, the attack and both numbers; facts: what may explain it, a line each.
    """

    what: str
    facts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Movement:
    """Between what an accuracy moved over the last fifth of a training, in percent."""

    low: float
    high: float
    looks: int


def movement(log: Path) -> Movement | None:
    """How far the accuracy under the watched attack moved at the end of a training.

    Args:
      log: training.csv.

    Returns:
      None where the training looked at test images too seldom.

    Raises:
      InputError: the file is absent or no training log.
    """
    columns = read_log(log)
    seen = columns.get("test_adversarial_accuracy", np.array([]))
    last = columns["epoch"] >= 0.8 * (columns["epoch"].max() + 1)
    values = 100 * seen[last & np.isfinite(seen)] if len(seen) else seen
    if len(values) < _FEWEST_LOOKS:
        return None
    return Movement(float(values.min()), float(values.max()), len(values))


def differences(
    table: StoredTable,
    *,
    changes: Mapping[str, str],
    movements: Mapping[tuple[str, int], Movement],
    spread: Spread | None = None,
) -> list[Difference]:
    """All numbers of a table that differ from the paper's by more than our interval.

    Args:
      table: the table.
      changes: row -> what its training has otherwise than the paper's; "" or absent: nothing.
      movements: (row, adversarial column from 0) -> of the attack that the training watched.
      spread: between trainings.
    """
    titles = ("clean", *(column.title for column in table.columns))
    found = []
    told: set[str] = set()
    for row in table.rows:
        for i, cell in enumerate((row.clean, *row.cells)):
            if not cell.differs:
                continue
            facts = []
            if changes.get(row.row) and row.row not in told:  # once a row is enough
                facts.append(f"trained with {changes[row.row]}")
                told.add(row.row)
            asked = table.columns[i - 1].grid_restarts if i else None
            if asked and cell.restarts and cell.restarts < asked and _above(cell):
                facts.append(f"{cell.restarts} of the paper's {asked} restarts, which leave more")
            if (moved := movements.get((row.row, i - 1))) is not None:
                facts.append(_of_movement(moved, cell))
            facts += _of_spread(spread, row, titles[i], cell)
            found.append(Difference(what=_what(row, titles[i], cell), facts=tuple(facts)))
    return found


def _what(row: TableRow, title: str, cell: Cell) -> str:
    assert cell.ours is not None and cell.by_paper is not None
    side = "above" if _above(cell) else "below"
    return (
        f"{row.label}, {title}: {cell.ours:.1f}% [{cell.low:.1f}, {cell.high:.1f}] "
        f"({sample_text(cell)}), {abs(cell.ours - cell.by_paper):.1f} points {side} the paper's "
        f"{cell.by_paper:.1f}%"
    )


def _above(cell: Cell) -> bool:
    return cell.ours is not None and cell.by_paper is not None and cell.ours > cell.by_paper


def _of_movement(moved: Movement, cell: Cell) -> str:
    return (
        f"in {moved.looks} looks at 200 test images over the last fifth of its training, this "
        f"accuracy moved between {moved.low:.1f} and {moved.high:.1f}%: the paper's number lies "
        f"{_side(cell, moved.low, moved.high)} that range"
    )


def _of_spread(spread: Spread | None, row: TableRow, title: str, cell: Cell) -> list[str]:
    if spread is None:
        return []
    found = {one.row: one for one in spread.rows}.get(row.row)
    cells = dict(zip(spread.columns, found.cells, strict=True)) if found else {}
    one = cells.get(title)
    if found is None or one is None or one.low is None or one.high is None:
        return []
    return [f"other trainings ({found.trainings}): {one}"]


def _side(cell: Cell, low: float, high: float) -> str:
    assert cell.by_paper is not None
    return "inside" if low <= cell.by_paper <= high else "outside"
