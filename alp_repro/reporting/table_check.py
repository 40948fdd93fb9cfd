"""Checks that the numbers of stored tables are possible, whatever the results are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from alp_repro.errors import InputError
from alp_repro.evaluation.intervals import wilson_interval
from alp_repro.reporting.table_names import TableName, table_title
from alp_repro.reporting.tables import Cell, TableRow
from alp_repro.validation import decoding

ROUNDING = 1e-6  # percent
T = TypeVar("T")


def read_checked(
    file: Path,
    kind: type[T],
    *,
    file_of: Callable[[Path, TableName], Path],
    check_row: Callable[[T, Any], None],
) -> T:
    """Read a table of this type, with `table`, `columns` and `rows`, and check its content.

    Args:
      file: JSON.
      kind: a dataclass.
      file_of: the file of a table in a scale's folder.
      check_row: raises InputError on a row of the table with impossible numbers.

    Raises:
      InputError: the file is something else, a row is given twice or lacks a cell of a column, or
        `check_row` raised one.
    """
    advice = "remove it to make it again"
    found: Any = decoding.read_json(file, kind, extra_keys=True, advice=advice)
    try:
        if file.name != file_of(Path(), found.table).name:
            raise InputError(f"the content is of {table_title(found.table)}")
        if not found.columns:
            raise InputError("the table has no columns")
        names = [row.row for row in found.rows]
        for row in found.rows:
            if names.count(row.row) > 1:
                raise InputError(f"row {row.row} is given {names.count(row.row)} times")
            if len(row.cells) != len(found.columns):
                raise InputError(
                    f"row {row.row} has {len(row.cells)} cells, expected {len(found.columns)}"
                )
            check_row(found, row)
    except InputError as error:
        raise InputError(f"{file} is damaged ({error}): {advice}") from error
    return found


def percentage_problem(cell: Any, *names: str) -> str:
    """Return which of a cell's numbers is not a percentage; "" if all are, or are None."""
    for name in names:
        value = getattr(cell, name)
        if value is not None and not 0 <= value <= 100:
            return f"{name} is {value:g}: expected a percentage from 0 to 100"
    return ""


def check_row(row: TableRow, titles: Sequence[str]) -> None:
    """Raise InputError on numbers of a row that are not possible, with the column.

    Args:
      row: with a cell for each column.
      titles: of the table's adversarial columns.
    """
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
