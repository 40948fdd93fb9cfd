"""Conditions on numbers of tables, and their states.

A condition requires a distance between one of our numbers and another, or a constant. It is judged
by the 95% interval of the difference: paired, if both are of the same images and their results
exist, otherwise of two samples:

    holds      the whole interval satisfies the condition
    fails      no part of it does
    undecided  a part of it does: more images would decide
    untested   a number is missing, or does not meet the claim's requirements: too few images or
               trainings, a clean accuracy below the minimum, a training that never got above
               chance; or it has too few restarts, and more of them could still change the state
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
    """A number in a table, by row and column, or in a figure of one of the table's models.

    column: the adversarial column, from 1; "clean"; "least": the least of all adversarial columns,
    including `strong`; or a measure of a figure (`figure_numbers.MEASURES`). of_clean: relative to
    the row's clean accuracy.
    """

    table: TableName
    row: str
    column: int | Literal["clean", "least"] | Measure
    of_clean: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """A number is above, below or near another number or a constant, by a number of points.

    Exactly one of `above`, `below` and `near` is given; near by 3 means within 3 points. A negative
    `by` allows a difference in the other direction: A below B by -10 means A < B + 10.
    """

    left: Number
    above: Number | float | None = None
    below: Number | float | None = None
    near: Number | float | None = None
    by: float = 0.0

    def __post_init__(self) -> None:
        """Check that there is exactly one relation."""
        if sum(side is not None for side in (self.above, self.below, self.near)) != 1:
            raise ValueError("expected exactly one of above, below and near")

    @property
    def relation(self) -> Literal["above", "below", "near"]:
        """The relation of the two sides."""
        if self.above is not None:
            return "above"
        return "below" if self.below is not None else "near"

    @property
    def right(self) -> Number | float:
        """The number or constant to compare with."""
        return next(s for s in (self.above, self.below, self.near) if s is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper, in our words.

    Attributes:
      name, claim, source: its name, its text, and where the paper makes it.
      refuted: what would refute it.
      conditions: what must hold.
      images, restarts, clean: the requirements on numbers: the least images, restarts (of the
        strongest column), and clean accuracy of the model in percent.
      seeds: the least number of trainings with different seeds; all must meet each condition.
      figure: our figure that shows its numbers, if there is one.
      hours: estimated time for all that it needs (`claims.ESTIMATED_ON`); None: not estimated.
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
        """The rows that the claim needs, by table."""
        sides = [side for c in self.conditions for side in (c.left, c.right)]
        needed: dict[TableName, dict[str, None]] = {}
        for side in sides:
            if isinstance(side, Number):
                needed.setdefault(side.table, {})[side.row] = None
        return {table: list(rows) for table, rows in needed.items()}


@dataclasses.dataclass(frozen=True)
class Tested:
    """A condition in words, its state, and why it is untested, if it is."""

    text: str
    state: State
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The evidence of one training of each row, all with the same seed.

    tables: number -> table; outcomes: which images survived, bool [n], for numbers whose results
    exist, in the same order for the whole table; measured: numbers of figures, with intervals.
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
    """Return the state of a condition by the interval of left - right."""
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
    """Return the interval of left - right in points, and how it was computed."""
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

    number: where it was found; few: a note if it has too few restarts.
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
        """The number's table."""
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
    """Return a number's column and cell; for "least", the column of the least number."""
    if side.column == "clean":
        return "clean", row.clean
    if side.column == "least":
        there = [(i, c) for i, c in enumerate(row.cells, 1) if c.ours is not None]
        least = min(there, key=lambda one: one[1].ours or 0.0, default=(1, Cell()))
        return least[0], _strongest(least[1], claim)
    assert isinstance(side.column, int)
    return side.column, _strongest(row.cells[side.column - 1], claim)


def _strongest(cell: Cell, claim: Claim) -> Cell:
    """Return the cell, or its further result if only that has enough restarts."""
    enough = (cell.restarts or 0) >= claim.restarts
    return cell if enough or cell.further is None else cell.further


def _unfit(row: TableRow, cell: Cell, side: Number, claim: Claim) -> str:
    """Return why a number does not meet a claim's requirements; "" if it does."""
    label = row_label(side.table, side.row)
    if row.mark:
        return f"{label}: {row.mark}"
    if row.clean.ours is not None and row.clean.ours < claim.clean:
        return f"{label} has a clean accuracy of {row.clean.ours:.1f}%, below {claim.clean:g}%"
    if cell.images is not None and cell.images < claim.images:
        return f"{label} was evaluated on {cell.images} images, fewer than {claim.images}"
    return ""


def condition_text(condition: Condition, left: str, right: str) -> str:
    """Describe a condition in words, with its two numbers."""

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
        return "the strongest attack"
    return "clean" if column == "clean" else f"attack {column}"
