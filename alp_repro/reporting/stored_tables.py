"""Tables as `table_files.write_table` wrote them, read again and compared with the models there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from alp_repro import decoding
from alp_repro.reporting import results
from alp_repro.reporting.tables import Cell, TableRow
from alp_repro.runs import RunDir


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredColumn:
    """A column: its title, the attack's settings as stored, how many images."""

    title: str
    ours_only: bool
    grid_restarts: int
    attack: dict[str, Any]
    images: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTable:
    """A table with its provenance; `images`: digest of the evaluation images."""

    table: int
    scale: str
    date: str
    revision: str
    columns: tuple[StoredColumn, ...]
    rows: tuple[TableRow, ...]
    images: str | None = None

    def row(self, name: str) -> TableRow | None:
        """The row of this name; None: there is none."""
        return next((row for row in self.rows if row.row == name), None)


def read_table(file: Path) -> StoredTable:
    """Reads a table.

    Raises:
      InputError: the file is something else.
    """
    table: StoredTable = decoding.read_json(
        file, StoredTable, extra_keys=True, advice="remove it to have it made again"
    )
    return table


def current(table: StoredTable, models: Path) -> StoredTable:
    """The table without the numbers of models that are no longer the ones in their folders.

    Args:
      table: as read.
      models: the folder of a data set's runs, <scale>/<dataset>.
    """
    rows = tuple(_current(row, RunDir(models / row.row)) for row in table.rows)
    return dataclasses.replace(table, rows=rows)


def _current(row: TableRow, run: RunDir) -> TableRow:
    shown = any(cell.ours is not None for cell in (row.clean, *row.cells))
    if not shown or row.model is None:  # a table of before models were noted
        return row
    if not run.finished:
        problem = "its model is no longer there"
    elif results.weights_now(run) != row.model:
        problem = "the table is of another model than is there now: make it again"
    else:
        return row
    return dataclasses.replace(
        row,
        clean=Cell(by_paper=row.clean.by_paper),
        cells=tuple(Cell(by_paper=cell.by_paper) for cell in row.cells),
        problems=(*row.problems, problem),
    )
