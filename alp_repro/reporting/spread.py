"""How much the numbers of a table vary between trainings that differ only in their seed."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.errors import InputError
from alp_repro.reporting.markdown import MISSING, line
from alp_repro.reporting.table_check import ROUNDING, percentage_problem, read_checked
from alp_repro.reporting.table_names import TableName, table_stem
from alp_repro.reporting.tables import AT_CHANCE, TableRow

if TYPE_CHECKING:
    from alp_repro.reporting.stored_tables import StoredTable

SCALE = "seeds"
BESIDE = "Between trainings that differ in their seed (mean and range; scale seeds):"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpreadCell:
    """A number over the trainings above chance, in percent; None: no training has it."""

    mean: float | None
    low: float | None
    high: float | None
    by_paper: float | None = None

    def __str__(self) -> str:
        """Format the mean and the range."""
        if self.mean is None:
            return MISSING
        return f"{self.mean:.1f}% ({self.low:.1f} to {self.high:.1f})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpreadRow:
    """A model's row; cells: first the clean accuracy, then one for each column.

    Attributes:
      row, label: see `TableRow`.
      seeds: of the existing trainings.
      collapsed: the seeds of trainings that never got above chance, which are left out.
      cells: over the other trainings.
      epochs: of the trainings, if known.
    """

    row: str
    label: str
    seeds: tuple[int, ...]
    collapsed: tuple[int, ...]
    cells: tuple[SpreadCell, ...]
    epochs: int | None = None

    @property
    def trainings(self) -> str:
        """Describe their number and length, and how many of them are at chance."""
        length = "" if self.epochs is None else f" of {self.epochs} epochs"
        return f"{len(self.seeds)}{length}, {len(self.collapsed) or 'none'} at chance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """A table over several seeds, with its provenance.

    Attributes:
      table, scale: its number and scale.
      heading: one line.
      columns: titles, the clean accuracy first.
      rows: the trained ones.
      date, revision: when and by which revision the summary was made.
    """

    table: TableName
    scale: str
    heading: str
    columns: tuple[str, ...]
    rows: tuple[SpreadRow, ...]
    date: str
    revision: str


def spread_file(scale_folder: Path, number: TableName) -> Path:
    """Return the file of a table's spread in a scale's folder."""
    return scale_folder / "tables" / f"{table_stem(number)}_seeds.json"


def spread_beside(runs_dir: Path, number: TableName) -> Spread | None:
    """Read the spread at scale `seeds`, to show with a table of any scale; None: not made.

    Raises:
      InputError: the file is something else.
    """
    file = spread_file(runs_dir / SCALE, number)
    return read_spread(file) if file.exists() else None


def read_spread(file: Path) -> Spread:
    """Read a file that `experiments.seeds` wrote, and check that its numbers are possible.

    Raises:
      InputError: the file is something else, or has impossible numbers.
    """
    return read_checked(file, Spread, file_of=spread_file, check_row=_check_row)


def _check_row(found: Spread, row: SpreadRow) -> None:
    if len(set(row.seeds)) < len(row.seeds) or not set(row.collapsed) <= set(row.seeds):
        raise InputError(
            f"row {row.row}: seeds {list(row.seeds)}, of which {list(row.collapsed)} "
            "collapsed: expected each seed once, and only trained ones to collapse"
        )
    count = len(row.seeds) - len(row.collapsed)
    for title, cell in zip(found.columns, row.cells, strict=True):
        if problem := _problem(cell, count):
            raise InputError(f"row {row.row}, {title}: {problem}")


def _problem(cell: SpreadCell, count: int) -> str:
    """Return why a cell's numbers cannot be those of `count` trainings; "" if they can."""
    if problem := percentage_problem(cell, "mean", "low", "high", "by_paper"):
        return problem
    if cell.mean is None or cell.low is None or cell.high is None or not count:
        alone = {cell.mean, cell.low, cell.high} != {None}
        return "expected either all or none of mean, low and high" if alone else ""
    # All but one number may be at one end of the range.
    least = cell.low + (cell.high - cell.low) / count
    most = cell.high - (cell.high - cell.low) / count
    within = least - ROUNDING <= cell.mean <= most + ROUNDING
    if cell.low > cell.high or not within:
        return f"{cell.mean:g} is not a mean of {count} numbers from {cell.low:g} to {cell.high:g}"
    return ""


def spread_rows(tables: Mapping[int, StoredTable]) -> tuple[SpreadRow, ...]:
    """Return the rows that any of the tables has numbers of.

    Args:
      tables: by seed, with the same columns.

    Raises:
      InputError: there is none, or their columns differ.
    """
    if not tables:
        raise InputError("no table of any seed: expected at least one")
    seeds = sorted(tables)
    titles = {seed: [column.title for column in tables[seed].columns] for seed in seeds}
    for seed in seeds:
        if titles[seed] != titles[seeds[0]]:
            raise InputError(
                f"the tables of seeds {seeds[0]} and {seed} have different columns: make one again"
            )
    found = []
    for row in tables[seeds[0]].rows:
        every = {seed: tables[seed].row(row.row) for seed in seeds}
        trained = {seed: one for seed, one in every.items() if one is not None and one.complete}
        if trained:
            found.append(_row(row, trained))
    return tuple(found)


def _row(row: TableRow, trained: Mapping[int, TableRow]) -> SpreadRow:
    collapsed = [seed for seed, one in trained.items() if one.mark == AT_CHANCE]
    lines = [
        [cell.ours for cell in (one.clean, *one.cells)]
        for seed, one in trained.items()
        if seed not in collapsed
    ]
    cells = []
    for i, cell in enumerate((row.clean, *row.cells)):
        values = np.array([line[i] for line in lines], float)
        numbers = (values.mean(), values.min(), values.max()) if len(values) else (None,) * 3
        mean, low, high = (None if number is None else float(number) for number in numbers)
        cells.append(SpreadCell(mean=mean, low=low, high=high, by_paper=cell.by_paper))
    return SpreadRow(
        row=row.row,
        label=row.label,
        seeds=tuple(trained),
        collapsed=tuple(collapsed),
        cells=tuple(cells),
    )


def to_markdown(spread: Spread) -> str:
    """Return mean and range of each number beside the paper's as Markdown."""
    titles = ["Model", "trainings"]
    for title in spread.columns:
        titles += [f"{title}: mean (range)", "paper"]
    lines = [spread.heading, "", line(titles), line(["---", *["---:"] * (len(titles) - 1)])]
    for row in spread.rows:
        fields = [row.label, row.trainings]
        for cell in row.cells:
            fields += [str(cell), MISSING if cell.by_paper is None else f"{cell.by_paper:.1f}%"]
        lines.append(line(fields))
    return "\n".join(lines) + "\n"


def lines_beside(spread: Spread) -> list[str]:
    """Return a line for each row, to show below a table of other runs."""
    return [
        f"{row.label}, {row.trainings}: "
        + "; ".join(
            f"{title} {cell}" for title, cell in zip(spread.columns, row.cells, strict=True)
        )
        for row in spread.rows
    ]


def to_csv(spread: Spread) -> str:
    """Return a line for each number, in percent, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", "column", "trainings", "collapsed", "mean", "low", "high", "paper"))
    for row in spread.rows:
        counts = (len(row.seeds), len(row.collapsed))
        for title, cell in zip(spread.columns, row.cells, strict=True):
            numbers = (cell.mean, cell.low, cell.high, cell.by_paper)
            writer.writerow((row.row, title, *counts, *numbers))
    return text.getvalue()
