"""Finds where our numbers differ from the paper's by a two-sample test, and what may explain it.

The explanations are facts about the runs: how their settings differ, and how much a number varies
at the end of its training and between trainings.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.reporting.extrapolation import expected_standing
from alp_repro.reporting.table_files import sample_text
from alp_repro.training.log import read_log

if TYPE_CHECKING:
    from alp_repro.evaluation import AttackRecord
    from alp_repro.reporting.spread import Spread
    from alp_repro.reporting.stored_tables import StoredTable
    from alp_repro.reporting.tables import Cell, TableRow

_FEWEST_LOOKS = 3
PAPERS_IMAGES = 1000
LOOK_IMAGES = 200  # on which a training measures accuracies

Records = Mapping[tuple[str, int], "AttackRecord"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A number that differs from the paper's by a two-sample test.

    what: the model, the attack and both numbers; facts: possible explanations, a line each.
    """

    what: str
    facts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Movement:
    """The range of an accuracy over the last fifth of a training, in percent."""

    low: float
    high: float
    looks: int


def movement(log: Path) -> Movement | None:
    """Return the range of the accuracy under the watched attack at the end of a training.

    Args:
      log: training.csv.

    Returns:
      None if there are too few measurements.

    Raises:
      InputError: the file is absent or not a training log.
    """
    columns = read_log(log)
    seen = columns.get("test_adversarial_accuracy", np.array([]))
    last = columns["epoch"] >= 0.8 * (columns["epoch"].max() + 1)
    values = 100 * seen[last & np.isfinite(seen)] if len(seen) else seen
    if len(values) < _FEWEST_LOOKS:
        return None
    return Movement(float(values.min()), float(values.max()), len(values))


def differs_significantly(cell: Cell) -> bool:
    """Return whether ours and the paper's number differ, p < 0.05 by Fisher's exact test.

    The paper's number is of 1000 images, too. The test compares two single trainings: it does not
    take the variation between trainings into account.
    """
    if cell.ours is None or cell.by_paper is None or cell.images is None:
        return False
    return _differ(cell.ours, cell.images, cell.by_paper)


def _differ(ours: float, images: int, by_paper: float) -> bool:
    """Return whether a share of `images` images, in percent, differs from the paper's number."""
    here, theirs = round(ours * images / 100), round(by_paper * PAPERS_IMAGES / 100)
    return fisher_p(here, images, theirs, PAPERS_IMAGES) < 0.05


@functools.lru_cache(maxsize=4096)
def fisher_p(count: int, trials: int, other: int, of_other: int) -> float:
    """Return the two-sided p of Fisher's exact test that two shares are of one proportion.

    It uses whole numbers, so that tables of equal probability compare as equal. SciPy has the test
    too, but takes a second to import, more than all else in showing stored results.
    """
    together = count + other
    lowest, highest = max(0, together - of_other), min(trials, together)
    ways = math.comb(trials, lowest) * math.comb(of_other, together - lowest)
    all_ways = []
    for k in range(lowest, highest + 1):
        all_ways.append(ways)
        ways = ways * (trials - k) * (together - k) // ((k + 1) * (of_other - together + k + 1))
    seen = all_ways[count - lowest]
    return sum(ways for ways in all_ways if ways <= seen) / sum(all_ways)


def differences(
    table: StoredTable,
    *,
    changes: Mapping[str, str],
    movements: Mapping[tuple[str, int], Movement],
    records: Records | None = None,
    spread: Spread | None = None,
) -> list[Difference]:
    """Return the numbers of a table for which `differs_significantly`, with facts.

    Args:
      table: the table.
      changes: row -> how its training differs from the paper's; "" or absent: not at all.
      movements: (row, adversarial column from 0) -> movement under the attack that was watched.
      records: (row, adversarial column from 0) -> the result behind the number.
      spread: the variation between trainings.
    """
    titles = ("clean", *(column.title for column in table.columns))
    found = []
    explained: set[str] = set()
    for row in table.rows:
        for i, cell in enumerate((row.clean, *row.cells)):
            if not differs_significantly(cell):
                continue
            facts = []
            if changes.get(row.row) and row.row not in explained:  # once for each row
                facts.append(f"trained with {changes[row.row]}")
                explained.add(row.row)
            record = (records or {}).get((row.row, i - 1))
            asked = table.columns[i - 1].grid_restarts if i else None
            if asked and cell.restarts and cell.restarts < asked and _above(cell):
                facts.append(_of_restarts(cell, record, asked))
                facts += _of_all_attacks(table, row, records or {}, cell)
            if (moved := movements.get((row.row, i - 1))) is not None:
                facts.append(_of_movement(moved, record))
            facts += _of_spread(spread, row, titles[i])
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


def _of_restarts(cell: Cell, record: AttackRecord | None, asked: int) -> str:
    """Describe how much of a higher number fewer restarts explain."""
    assert cell.restarts is not None and cell.by_paper is not None and cell.images is not None
    text = f"{cell.restarts} of the paper's {asked} restarts, so that more images survive"
    expected = None
    if record is not None:
        expected = expected_standing(record.first_break, reached=cell.restarts, restarts=asked)
    if expected is None:
        return (
            f"{text}; too few images broke after the first restart to extrapolate to {asked} "
            "restarts"
        )
    low, high = (100 * share for share in expected)
    text += (
        f"; extrapolated from the restarts at which images broke, {low:.1f} to {high:.1f}% would "
        f"survive {asked}"
    )
    if low > cell.by_paper and _differ(low, cell.images, cell.by_paper):
        return f"{text}: this explains only a part of the difference"
    return f"{text}: this may explain the difference"


def _of_all_attacks(table: StoredTable, row: TableRow, records: Records, cell: Cell) -> list[str]:
    """Note a difference of the models if more images survive all attacks than the paper's one."""
    found = [
        records[row.row, i].standing_at(row.cells[i].restarts or 1)
        for i in range(len(table.columns))
        if (row.row, i) in records and row.cells[i].images == cell.images
    ]
    if len(found) < 2 or cell.by_paper is None:
        return []
    together = 100 * float(np.logical_and.reduce(found).mean())
    if together <= cell.by_paper or not _differ(together, len(found[0]), cell.by_paper):
        return []
    return [
        f"{together:.1f}% survive all {len(found)} attacks of the table together, still above the "
        "paper's: the models differ"
    ]


def _of_movement(moved: Movement, record: AttackRecord | None) -> str:
    text = (
        f"in {moved.looks} measurements on the first {LOOK_IMAGES} evaluation images over the last "
        f"fifth of its training, this accuracy ranged from {moved.low:.1f} to {moved.high:.1f}%"
    )
    if record is not None and len(record.labels) >= LOOK_IMAGES:
        own = 100 * float(record.standing_at(1)[:LOOK_IMAGES].mean())
        text += f" (on these images the finished model has {own:.1f}%)"
    return text


def _of_spread(spread: Spread | None, row: TableRow, title: str) -> list[str]:
    if spread is None:
        return []
    found = {one.row: one for one in spread.rows}.get(row.row)
    cells = dict(zip(spread.columns, found.cells, strict=True)) if found else {}
    one = cells.get(title)
    if found is None or one is None or one.low is None or one.high is None:
        return []
    return [f"variation between seeds, in shorter trainings ({found.trainings}): {one}"]
