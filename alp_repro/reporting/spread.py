"""How much the numbers of a table move between trainings that differ in their seed alone."""

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
from alp_repro.reporting.table_names import TableName, table_stem
from alp_repro.reporting.tables import AT_CHANCE, TableRow
from alp_repro.validation import decoding

if TYPE_CHECKING:
    from alp_repro.reporting.stored_tables import StoredTable

SCALE = "seeds"
BESIDE = "Between trainings that differ in their seed (mean and range; scale seeds):"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpreadCell:
    """A number over the trainings that did not collapse, in percent; None: no training has it."""

    mean: float | None
    low: float | None
    high: float | None
    by_paper: float | None = None

    def __str__(self) -> str:
        """The mean and the range."""
        if self.mean is None:
            return MISSING
        return f"{self.mean:.1f}% ({self.low:.1f} to {self.high:.1f})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpreadRow:
    """A model's line; cells: the clean accuracy first, then one a column.

    Attributes:
      row, label: see `TableRow`.
      seeds: of the trainings that are there.
      collapsed: those of them whose training stood at chance, which no number is of.
      cells: over the others.
      epochs: of the trainings, where it is known.
    """

    row: str
    label: str
    seeds: tuple[int, ...]
    collapsed: tuple[int, ...]
    cells: tuple[SpreadCell, ...]
    epochs: int | None = None

    @property
    def trainings(self) -> str:
        """How many there are, how long they were, and how many of them collapsed."""
        length = "" if self.epochs is None else f" of {self.epochs} epochs"
        return f"{len(self.seeds)}{length}, {len(self.collapsed) or 'none'} at chance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """A table over several seeds, with its provenance.

    Attributes:
      table, scale: which.
      heading: one line.
      columns: titles, the clean accuracy first.
      rows: those that were trained.
      date, revision: when and by what the summary was made.
    """

    table: TableName
    scale: str
    heading: str
    columns: tuple[str, ...]
    rows: tuple[SpreadRow, ...]
    date: str
    revision: str


def spread_file(scale_folder: Path, number: TableName) -> Path:
    """Where a scale's folder keeps the spread of a table."""
    return scale_folder / "tables" / f"{table_stem(number)}_seeds.json"


def spread_beside(runs_dir: Path, number: TableName) -> Spread | None:
    """What stands beside a table of any scale: the spread at scale `seeds`, if it was made.

    Raises:
      InputError: the file is something else.
    """
    file = spread_file(runs_dir / SCALE, number)
    return read_spread(file) if file.exists() else None


def read_spread(file: Path) -> Spread:
    """Reads what `experiments.seeds` wrote.

    Raises:
      InputError: the file is something else.
    """
    found: Spread = decoding.read_json(
        file, Spread, extra_keys=True, advice="remove it to have it made again"
    )
    return found


def spread_rows(tables: Mapping[int, StoredTable]) -> tuple[SpreadRow, ...]:
    """The rows that any of the tables has numbers of.

    Args:
      tables: one a seed, of the same columns.

    Raises:
      InputError: there is none, or their columns differ.
    """
    if not tables:
        raise InputError("no seed has a table yet")
    seeds = sorted(tables)
    titles = {seed: [column.title for column in tables[seed].columns] for seed in seeds}
    for seed in seeds:
        if titles[seed] != titles[seeds[0]]:
            raise InputError(
                f"the tables of seeds {seeds[0]} and {seed} have other columns: make one again"
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
    """Mean and range of each number beside the paper's."""
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


def told_beside(spread: Spread) -> list[str]:
    """The same below a table of other runs, a line a row."""
    return [
        f"{row.label}, {row.trainings}: "
        + "; ".join(
            f"{title} {cell}" for title, cell in zip(spread.columns, row.cells, strict=True)
        )
        for row in spread.rows
    ]


def to_csv(spread: Spread) -> str:
    """One line a number, in percent."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", "column", "trainings", "collapsed", "mean", "low", "high", "paper"))
    for row in spread.rows:
        counts = (len(row.seeds), len(row.collapsed))
        for title, cell in zip(spread.columns, row.cells, strict=True):
            numbers = (cell.mean, cell.low, cell.high, cell.by_paper)
            writer.writerow((row.row, title, *counts, *numbers))
    return text.getvalue()
