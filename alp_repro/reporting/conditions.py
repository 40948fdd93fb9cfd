"""Conditions on numbers of tables, and their states.

A condition asks for a distance between a number of ours and
another, or a constant, and judges it by the 95% interval of the difference: paired, where both are
of the same images and their results are there, else of two samples:

    holds      the whole interval keeps the asked distance
    fails      none of it does
    undecided  in between: more images would tell
    untested   a number is missing, or is of a model or of a sample that the claim is not about:
               fewer images or trainings than it asks for, a clean accuracy below its minimum, a
               training that stood at chance; or has fewer restarts than asked and is on the side
               where more of them could still turn the answer
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from alp_repro.evaluation.pairs import paired_interval, two_sample_interval
from alp_repro.reporting.figure_numbers import COUNTS, MEASURES, Measure
from alp_repro.reporting.labels import row_label
from alp_repro.reporting.stored_tables import StoredTable
from alp_repro.reporting.table_names import TableName, table_title
from alp_repro.reporting.tables import Cell, TableRow

State = Literal["holds", "fails", "undecided", "untested"]
Outcomes = Mapping["Number", np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    """A number of a table, its row and column, or of a figure of one of its models.

    column: the adversarial one, from 1; "clean"; "least": the least of all adversarial columns,
    `strong` among them; or what a figure shows (`figure_numbers.MEASURES`). of_clean: as a share
    of the row's clean accuracy.
    """

    table: TableName
    row: str
    column: int | Literal["clean", "least"] | Measure
    of_clean: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """That a number lies above, or below, another or a constant, or near it, by so many points.

    Exactly one of `above`, `below` and `near` is given; near another by 3 is within 3 points of
    it. A negative `by` allows so many points the wrong way: A below B by -10 is A < B + 10.
    """

    left: Number
    above: Number | float | None = None
    below: Number | float | None = None
    near: Number | float | None = None
    by: float = 0.0

    def __post_init__(self) -> None:
        """Checks that it says one thing."""
        if sum(side is not None for side in (self.above, self.below, self.near)) != 1:
            raise ValueError("a condition has one of above, below and near")

    @property
    def relation(self) -> Literal["above", "below", "near"]:
        """What is asked."""
        if self.above is not None:
            return "above"
        return "below" if self.below is not None else "near"

    @property
    def right(self) -> Number | float:
        """What the number is compared with."""
        return next(s for s in (self.above, self.below, self.near) if s is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper's, in our words.

    Attributes:
      name, claim, source: what it is called, says, and where the paper says it.
      refuted: what would refute it.
      conditions: what must hold.
      images, restarts, clean: the least that a number must have to bear on it: images, restarts
        (of the strongest column), the model's clean accuracy in percent.
      seeds: the least trainings that differ in their seed; each must meet each condition.
      figure: the figure of ours that shows its numbers, if one does.
      hours: estimate of all that it needs (`claims.ESTIMATED_ON`); None: nobody has measured.
    """

    name: str
    claim: str
    source: str
    refuted: str
    conditions: tuple[Condition, ...]
    images: int = 100
    restarts: int = 1
    clean: float = 90.0
    seeds: int = 1
    figure: str | None = None
    hours: float | None = None

    @property
    def rows(self) -> dict[TableName, list[str]]:
        """The rows that it needs, by table."""
        sides = [side for c in self.conditions for side in (c.left, c.right)]
        needed: dict[TableName, dict[str, None]] = {}
        for side in sides:
            if isinstance(side, Number):
                needed.setdefault(side.table, {})[side.row] = None
        return {table: list(rows) for table, rows in needed.items()}


@dataclasses.dataclass(frozen=True)
class Tested:
    """A condition in words, its state, and why where it is untested."""

    text: str
    state: State
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What one training of each row, all of one seed, has to say.

    tables: number -> table; outcomes: what stands, bool [n], of numbers whose results are there, an
    image at the same place in all of a table; measured: of figures, with intervals.
    """

    tables: Mapping[TableName, StoredTable]
    outcomes: Outcomes = dataclasses.field(default_factory=dict)
    measured: Mapping[Number, Cell] = dataclasses.field(default_factory=dict)


def tested_condition(condition: Condition, claim: Claim, evidence: Evidence) -> Tested:
    """Test a condition on the tables of one seed."""
    sides = []
    for side in (condition.left, condition.right):
        found = _Side.of(side, claim, evidence)
        if found.why:
            return Tested(condition_text(condition, "?", "?"), "untested", found.why)
        sides.append(found)
    left, right = sides
    low, high, how = _difference(condition, left, right, evidence.outcomes)
    text = condition_text(condition, left.text, right.text)
    text += f": difference {left.value - right.value:+.1f} [{low:+.1f}, {high:+.1f}]{how}"
    state = _state(condition, low, high)
    # With more restarts a number can only fall.
    falling = {"holds": left if condition.relation == "above" else right}
    falling["fails"] = right if condition.relation == "above" else left
    few = [side.few for side in (left, right) if side.few]
    if few and (condition.relation == "near" or state == "undecided" or falling[state].few):
        return Tested(text, "untested", "; ".join(few))
    return Tested(text, state)


def _state(condition: Condition, low: float, high: float) -> State:
    """What the interval of left - right says."""
    if condition.relation == "near":
        if -condition.by < low and high < condition.by:
            return "holds"
        return "fails" if high <= -condition.by or condition.by <= low else "undecided"
    if condition.relation == "below":
        low, high = -high, -low
    if low > condition.by:
        return "holds"
    return "fails" if high <= condition.by else "undecided"


def _difference(
    condition: Condition, left: _Side, right: _Side, outcomes: Outcomes
) -> tuple[float, float, str]:
    """The interval of left - right in points, and how it was found."""
    ours = outcomes.get(left.number) if left.number else None
    theirs = outcomes.get(right.number) if right.number else None
    same = left.table == right.table and not condition.left.of_clean
    if same and ours is not None and theirs is not None and len(ours) == len(theirs):
        low, high = paired_interval(ours, theirs)
        return 100 * low, 100 * high, " (paired, the same images)"
    found = two_sample_interval(
        left.value, (left.low, left.high), right.value, (right.low, right.high)
    )
    return *found, ""


@dataclasses.dataclass(frozen=True)
class _Side:
    """One side of a comparison, in percent, or why there is none.

    number: where it was found; few: that it has fewer restarts than asked.
    """

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    text: str = ""
    why: str = ""
    few: str = ""
    number: Number | None = None

    @property
    def table(self) -> TableName | None:
        """Which table the number is of."""
        return self.number.table if self.number else None

    @classmethod
    def of(cls, side: Number | float, claim: Claim, evidence: Evidence) -> _Side:
        if not isinstance(side, Number):
            return cls(side, side, side, f"{side:g}%")
        label = row_label(side.table, side.row)
        table = evidence.tables.get(side.table)
        row = table.row(side.row) if table else None
        if row is None or (isinstance(side.column, int) and side.column > len(row.cells)):
            return cls(why=f"{table_title(side.table)} has no {label} yet")
        if side.column in MEASURES:
            return cls._of_figure(row, side, claim, evidence.measured.get(side, Cell()))
        column, cell = _cell_of(row, side, claim)
        why = _unfit(row, cell, side, claim)
        if why or cell.ours is None or cell.low is None or cell.high is None:
            return cls(why=why or f"{label} has no number in column {side.column} yet")
        sample = f"n={cell.images}" + (f", r={cell.restarts}" if cell.restarts else "")
        scale = 100 / row.clean.ours if side.of_clean and row.clean.ours else 1.0
        value, low, high = (scale * number for number in (cell.ours, cell.low, cell.high))
        few = ""
        # The first columns have one restart by the paper's own protocol, `strong` its budget.
        if column == 3 and cell.restarts is not None and cell.restarts < claim.restarts:
            few = f"{label} has {cell.restarts} restarts, fewer than {claim.restarts}"
        number = Number(table=side.table, row=side.row, column=column)
        return cls(
            value, low, high, f"{value:.1f}% [{low:.1f}, {high:.1f}] ({sample})", "", few, number
        )

    @classmethod
    def _of_figure(cls, row: TableRow, side: Number, claim: Claim, cell: Cell) -> _Side:
        why = _unfit(row, cell, side, claim)
        if why or cell.ours is None or cell.low is None or cell.high is None:
            return cls(why=why or f"no figure of {row_label(side.table, side.row)} shows this yet")
        text = f"{cell.ours:.1f}% [{cell.low:.1f}, {cell.high:.1f}] (n={cell.images})"
        if side.column in COUNTS:
            text = f"{cell.ours:g}"
        return cls(cell.ours, cell.low, cell.high, text)


def _cell_of(
    row: TableRow, side: Number, claim: Claim
) -> tuple[int | Literal["clean", "least"], Cell]:
    """A number's column and cell; of "least" the column that it is in."""
    if side.column == "clean":
        return "clean", row.clean
    if side.column == "least":
        there = [(i, c) for i, c in enumerate(row.cells, 1) if c.ours is not None]
        least = min(there, key=lambda one: one[1].ours or 0.0, default=(1, Cell()))
        return least[0], _strongest(least[1], claim)
    assert isinstance(side.column, int)
    return side.column, _strongest(row.cells[side.column - 1], claim)


def _strongest(cell: Cell, claim: Claim) -> Cell:
    """The cell itself, or its further result where only that has the restarts asked for."""
    enough = (cell.restarts or 0) >= claim.restarts
    return cell if enough or cell.further is None else cell.further


def _unfit(row: TableRow, cell: Cell, side: Number, claim: Claim) -> str:
    """Why a number does not bear on a claim; "" when it does."""
    label = row_label(side.table, side.row)
    if row.mark:
        return f"{label}: {row.mark}"
    if row.clean.ours is not None and row.clean.ours < claim.clean:
        return f"{label} has a clean accuracy of {row.clean.ours:.1f}%, below {claim.clean:g}%"
    if cell.images is not None and cell.images < claim.images:
        return f"{label} was looked at on {cell.images} images, fewer than {claim.images}"
    return ""


def condition_text(condition: Condition, left: str, right: str) -> str:
    """Say a condition in words, with its two numbers."""

    def name(side: Number | float, shown: str) -> str:
        if not isinstance(side, Number):
            return f"{side:g}%"
        share = ", of its clean accuracy" if side.of_clean else ""
        place = MEASURES.get(side.column)
        place = place or f"{table_title(side.table)}, {_column_text(side.column)}{share}"
        return f"{row_label(side.table, side.row)} ({place}): {shown}"

    relation = condition.relation
    distance = f" by {condition.by:g} points" if condition.by else ""
    return f"{name(condition.left, left)} {relation} {name(condition.right, right)}{distance}"


def _column_text(column: int | str) -> str:
    if column == "least":
        return "the attack that leaves least"
    return "clean" if column == "clean" else f"attack {column}"
