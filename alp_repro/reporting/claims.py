"""The paper's claims and what our tables say of each; a rule on numbers decides, nobody else.

`reference/claims.json` has the claims. A condition compares the 95% interval of a number of ours
with that of another, or with a constant:

    holds      even the nearest ends of the intervals keep the asked distance
    fails      even the farthest ends do not
    undecided  in between: more images would tell
    untested   a number is missing, or is of a model or of a sample that the claim is not about:
               fewer images or restarts than it asks for, a clean accuracy below its minimum, a
               training that stood at chance
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Literal

from alp_repro import decoding

if TYPE_CHECKING:
    from alp_repro.reporting.differences import Difference
    from alp_repro.reporting.stored_tables import StoredTable
    from alp_repro.reporting.tables import Cell, TableRow

State = Literal["holds", "fails", "undecided", "untested"]
Verdict = Literal["reproduced", "partly", "not", "not yet tested"]
ESTIMATED_ON = "on two cores at scale published, estimated"
RULE = (
    "reproduced: every condition holds; not: none holds and one or more fail; partly: some hold, "
    "others fail, are undecided or are not tested; not yet tested: none holds and none fails."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    """A number of a table: its row, and its adversarial column, from 1."""

    table: int
    row: str
    column: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """That a number lies above, or below, another or a constant, by so many points.

    Exactly one of `above` and `below` is given. A negative `by` allows so many points the wrong
    way: A below B by -10 is A < B + 10.
    """

    left: Number
    above: Number | float | None = None
    below: Number | float | None = None
    by: float = 0.0

    def __post_init__(self) -> None:
        """Checks that it says one thing."""
        if (self.above is None) == (self.below is None):
            raise ValueError("a condition has one of above and below")

    @property
    def right(self) -> Number | float:
        """What the number is compared with."""
        found = self.above if self.above is not None else self.below
        assert found is not None
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper's, in our words.

    Attributes:
      name, claim, source: what it is called, says, and where the paper says it.
      refuted: what would refute it.
      conditions: what must hold.
      images, restarts, clean: the least that a number must have to bear on it: images, restarts
        (of the strongest column), the model's clean accuracy in percent.
      hours: estimate of all that it needs (`ESTIMATED_ON`); None: nobody has measured.
    """

    name: str
    claim: str
    source: str
    refuted: str
    conditions: tuple[Condition, ...]
    images: int = 100
    restarts: int = 1
    clean: float = 90.0
    hours: float | None = None

    @property
    def rows(self) -> dict[int, list[str]]:
        """The rows that it needs, by table."""
        sides = [side for c in self.conditions for side in (c.left, c.right)]
        needed: dict[int, dict[str, None]] = {}
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
class Judged:
    """A claim with the state of its conditions and the verdict that follows."""

    claim: Claim
    conditions: tuple[Tested, ...]
    verdict: Verdict


def load_claims() -> tuple[Claim, ...]:
    """The claims of the paper."""
    file = resources.files("alp_repro.reporting").joinpath("reference").joinpath("claims.json")
    claims: tuple[Claim, ...] = decoding.from_json(
        file.read_text(encoding="utf-8"), tuple[Claim, ...], source="claims.json"
    )
    return claims


def judge(claim: Claim, tables: Mapping[int, StoredTable]) -> Judged:
    """What the tables say of a claim.

    Args:
      claim: the claim.
      tables: number -> table, as far as there are any.
    """
    tested = tuple(_test(condition, claim, tables) for condition in claim.conditions)
    return Judged(claim, tested, verdict_of([one.state for one in tested]))


def verdict_of(states: Sequence[State]) -> Verdict:
    """The rule (`RULE`)."""
    if all(state == "holds" for state in states):
        return "reproduced"
    if "holds" in states:
        return "partly"
    return "not" if "fails" in states else "not yet tested"


def _test(condition: Condition, claim: Claim, tables: Mapping[int, StoredTable]) -> Tested:
    sides = []
    for side in (condition.left, condition.right):
        found = _Side.of(side, claim, tables)
        if found.why:
            return Tested(_text(condition, "?", "?"), "untested", found.why)
        sides.append(found)
    left, right = sides
    text = _text(condition, left.text, right.text)
    upper, lower = (left, right) if condition.above is not None else (right, left)
    if upper.low > lower.high + condition.by:
        return Tested(text, "holds")
    return Tested(text, "fails" if upper.high <= lower.low + condition.by else "undecided")


@dataclasses.dataclass(frozen=True)
class _Side:
    """One side of a comparison, in percent, or why there is none."""

    low: float = 0.0
    high: float = 0.0
    text: str = ""
    why: str = ""

    @classmethod
    def of(cls, side: Number | float, claim: Claim, tables: Mapping[int, StoredTable]) -> _Side:
        if not isinstance(side, Number):
            return cls(side, side, f"{side:g}%")
        table = tables.get(side.table)
        row = table.row(side.row) if table else None
        if row is None or side.column > len(row.cells):
            return cls(why=f"Table {side.table} has no {side.row} yet")
        cell = _strongest(row.cells[side.column - 1], claim)
        why = _unfit(row, cell, side, claim)
        if why or cell.ours is None or cell.low is None or cell.high is None:
            return cls(why=why or f"{side.row} has no number in column {side.column} yet")
        sample = f"n={cell.images}, r={cell.restarts}"
        return cls(
            cell.low, cell.high, f"{cell.ours:.1f}% [{cell.low:.1f}, {cell.high:.1f}] ({sample})"
        )


def _strongest(cell: Cell, claim: Claim) -> Cell:
    """The cell itself, or its further result where only that has the restarts asked for."""
    enough = (cell.restarts or 0) >= claim.restarts
    return cell if enough or cell.further is None else cell.further


def _unfit(row: TableRow, cell: Cell, side: Number, claim: Claim) -> str:
    """Why a number does not bear on a claim; "" when it does."""
    if row.mark:
        return f"{side.row}: {row.mark}"
    if row.clean.ours is not None and row.clean.ours < claim.clean:
        return f"{side.row} has a clean accuracy of {row.clean.ours:.1f}%, below {claim.clean:g}%"
    if cell.images is not None and cell.images < claim.images:
        return f"{side.row} was attacked on {cell.images} images, fewer than {claim.images}"
    # The first columns have one restart by the paper's own protocol.
    if side.column == 3 and cell.restarts is not None and cell.restarts < claim.restarts:
        return f"{side.row} has {cell.restarts} restarts, fewer than {claim.restarts}"
    return ""


def _text(condition: Condition, left: str, right: str) -> str:
    def name(side: Number | float, shown: str) -> str:
        if not isinstance(side, Number):
            return f"{side:g}%"
        return f"{side.row} (Table {side.table}, column {side.column}): {shown}"

    relation = "above" if condition.above is not None else "below"
    distance = f" by {condition.by:g} points" if condition.by else ""
    return f"{name(condition.left, left)} {relation} {name(condition.right, right)}{distance}"


def to_markdown(
    judged: Sequence[Judged],
    commands: Mapping[str, Sequence[str]],
    costs: Sequence[str],
    differing: Mapping[int, Sequence[Difference]] | None = None,
) -> str:
    """The claims with numbers, rules and verdicts.

    Args:
      judged: the claims.
      commands: claim's name -> commands that make what it needs.
      costs: what was spent, a line a row.
      differing: table's number -> where it differs from the paper's.
    """
    lines = ["# The paper's claims, and what our numbers say", ""]
    lines += ["Verdicts follow from the conditions by a rule; none is written by hand.", RULE, ""]
    lines += ["| claim | verdict |", "| --- | --- |"]
    lines += [f"| {one.claim.claim} | **{one.verdict}** |" for one in judged]
    for one in judged:
        lines += ["", f"## {one.claim.name}: {one.verdict}", "", one.claim.claim]
        lines += ["", f"Paper: {one.claim.source}. Refuted if: {one.claim.refuted}", ""]
        for tested in one.conditions:
            why = f" ({tested.why})" if tested.why else ""
            lines.append(f"- {tested.state}: {tested.text}{why}")
        if one.verdict != "reproduced" and any(c.state == "untested" for c in one.conditions):
            hours = one.claim.hours
            told = (
                "hours not measured" if hours is None else f"about {hours:g} hours {ESTIMATED_ON}"
            )
            lines += ["", f"To test it ({told}):", ""]
            lines += [f"    {command}" for command in commands.get(one.claim.name, ())]
    for number, found in (differing or {}).items():
        lines += ["", f"## Where Table {number} differs from the paper's", ""]
        lines += ["By more than our 95% interval; below each number what may explain it.", ""]
        for difference in found:
            lines += [f"- {difference.what}", *(f"  - {fact}" for fact in difference.facts)]
    if costs:
        lines += ["", "## What was spent", "", *(f"- {cost}" for cost in costs)]
    return "\n".join(lines) + "\n"
