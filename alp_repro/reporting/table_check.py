"""Checks that the numbers of stored tables are possible, whatever the results are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from alp_repro.errors import InputError
from alp_repro.evaluation.intervals import wilson_interval
from alp_repro.reporting.tables import Cell, TableRow
from alp_repro.validation import decoding

ROUNDING = 1e-6  # percent
T = TypeVar("T")


def read_checked(file: Path, kind: type[T], check: Callable[[T], None]) -> T:
    """Read plain data of this type from a JSON file, and check its content.

    Raises:
      InputError: the file is something else, or `check` raised one.
    """
    advice = "remove it to make it again"
    found: T = decoding.read_json(file, kind, extra_keys=True, advice=advice)
    try:
        check(found)
    except InputError as error:
        raise InputError(f"{file} is damaged ({error}): {advice}") from error
    return found


def check_layout(name: str, names: Sequence[str], cells: int, columns: int) -> None:
    """Raise InputError unless a row is given once in a table, with a cell for each column.

    Args:
      name: of the row.
      names: of all rows.
      cells: how many the row has.
      columns: how many the table has.
    """
    if names.count(name) > 1:
        raise InputError(f"row {name} is given {names.count(name)} times")
    if cells != columns:
        raise InputError(f"row {name} has {cells} cells, expected {columns}")


def percentage_problem(cell: Any, *names: str) -> str:
    """Return which of a cell's numbers is not a percentage; "" if all are, or are None."""
    for name in names:
        value = getattr(cell, name)
        if value is not None and not 0 <= value <= 100:
            return f"{name} is {value:g}: expected a percentage from 0 to 100"
    return ""


def check_rows(rows: Sequence[TableRow], titles: Sequence[str]) -> None:
    """Check that each row occurs once, and has possible numbers and a cell for each column.

    Args:
      rows: of the table.
      titles: of its adversarial columns.

    Raises:
      InputError: what is wrong, with the row and the column.
    """
    names = [row.row for row in rows]
    for row in rows:
        check_layout(row.row, names, len(row.cells), len(titles))
        for title, cell in zip(("clean", *titles), (row.clean, *row.cells), strict=True):
            for one in (cell, cell.further, cell.long_run):
                problem = "" if one is None else _problem(one)
                if problem:
                    raise InputError(f"row {row.row}, {title}: {problem}")


def _problem(cell: Cell) -> str:
    """Return why a cell's numbers are impossible; "" if they are not."""
    if problem := percentage_problem(cell, "ours", "low", "high", "by_paper", "mean"):
        return problem
    for name in ("images", "restarts"):
        value = getattr(cell, name)
        if value is not None and value < 1:
            return f"{name} is {value}: expected 1 or more"
    if cell.ours is None or cell.low is None or cell.high is None:
        alone = any(value is not None for value in (cell.ours, cell.low, cell.high))
        return "expected either all or none of ours, low and high" if alone else ""
    if not cell.low - ROUNDING <= cell.ours <= cell.high + ROUNDING:
        return f"{cell.ours:g} is outside its interval [{cell.low:g}, {cell.high:g}]"
    return "" if cell.images is None else _interval_problem(cell, cell.ours, cell.images)


def _interval_problem(cell: Cell, ours: float, images: int) -> str:
    count = round(ours * images / 100)
    if not math.isclose(100 * count / images, ours, abs_tol=ROUNDING):
        return f"{ours:g}% of {images} images is not a whole number of images"
    low, high = (100 * end for end in wilson_interval(count, images))
    assert cell.low is not None and cell.high is not None
    beside = ((low, cell.low), (high, cell.high))
    if all(math.isclose(right, told, abs_tol=ROUNDING) for right, told in beside):
        return ""
    return (
        f"[{cell.low:g}, {cell.high:g}] is not the interval of {ours:g}% of {images} images, "
        f"[{low:.2f}, {high:.2f}]"
    )
