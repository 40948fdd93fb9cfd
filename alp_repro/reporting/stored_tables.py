"""Reads tables that `table_files.write_table` wrote, and compares them with the models."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import files, runs, shipped
from alp_repro.attacks import EXECUTION, attack_of
from alp_repro.data import dataset_spec
from alp_repro.errors import InputError
from alp_repro.evaluation.published import SCALE, published_run, records_of
from alp_repro.evaluation.record_file import load_record
from alp_repro.reporting import results
from alp_repro.reporting.table_check import check_row, read_checked
from alp_repro.reporting.table_names import TableName, table_stem, table_title
from alp_repro.reporting.tables import (
    Cell,
    Column,
    TableRow,
    load_paper_table,
    paper_number,
    paper_place,
)
from alp_repro.runs import RunDir

if TYPE_CHECKING:
    from alp_repro.evaluation import AttackRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredColumn:
    """A column: its title, the attack's settings as stored, and the number of images."""

    title: str
    ours_only: bool
    grid_restarts: int
    attack: dict[str, Any]
    images: int | None = None


_NOT_MADE = StoredColumn(title="not made", ours_only=False, grid_restarts=1, attack={})


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTable:
    """A table with its provenance; `images`: digest of the evaluation images."""

    table: TableName
    scale: str
    date: str
    revision: str
    columns: tuple[StoredColumn, ...]
    rows: tuple[TableRow, ...]
    images: str | None = None

    def row(self, name: str) -> TableRow | None:
        """Return the row of this name; None: there is none."""
        return next((row for row in self.rows if row.row == name), None)


def shipped_table(number: TableName) -> StoredTable | None:
    """Return the published table that comes with the project; None: there is none.

    Raises:
      InputError: the file is something else.
    """
    file = table_file(shipped.folder("results") / SCALE, number)
    return read_table(file) if file.exists() else None


def table_file(folder: Path, number: TableName) -> Path:
    """Return the file of a table in a scale's folder."""
    return folder / "tables" / f"{table_stem(number)}.json"


def read_table(file: Path) -> StoredTable:
    """Read a table, and check that its numbers are possible.

    Raises:
      InputError: the file is something else, or has impossible numbers.
    """

    def check(table: StoredTable, row: TableRow) -> None:
        check_row(row, [column.title for column in table.columns])

    return read_checked(file, StoredTable, file_of=table_file, check_row=check)


def current(table: StoredTable, models: Path) -> StoredTable:
    """Return the table without the numbers of models that have changed or no longer exist.

    Args:
      table: as read.
      models: the folder of a data set's runs, <scale>/<dataset>.

    Raises:
      InputError: a number does not follow from its model's results, or a result is damaged.
    """
    check_supported(table, models)
    rows = tuple(_current(row, RunDir(models / row.row)) for row in table.rows)
    return dataclasses.replace(table, rows=rows)


def check_supported(table: StoredTable, models: Path) -> None:
    """Check that a table's numbers follow from the results of its models.

    Two kinds of rows are not checked: those whose model is not the one in its folder, and those
    without results that record neither model nor number of images, as early versions wrote them.

    Args:
      table: as read.
      models: the folder of a data set's runs, <scale>/<dataset>.

    Raises:
      InputError: a number does not follow from the results, or has none.
    """
    for row, run in described_rows(table, models):
        records = [load_record(path) for path in files.finished_files(run.attacks)]
        if not records and None in (row.model, row.clean.images):
            continue
        own = [one for one in records if row.model in (None, one.settings.get("model"))]
        problems = unsupported(table, row, own) + _not_the_papers(table, row)
        if problems:
            raise InputError(f"{run.attacks}: {problems[0]}; make the table again")


def described_rows(table: StoredTable, models: Path) -> Iterator[tuple[TableRow, RunDir]]:
    """Yield the rows with numbers whose model is that of their run, which it need not contain.

    Args:
      table: as read; early versions recorded no models.
      models: the folder of a data set's runs, <scale>/<dataset>.
    """
    for row in table.rows:
        run = RunDir(models / row.row)
        shown = any(cell.ours is not None for cell in (row.clean, *row.cells))
        if shown and run.recipe.exists() and row.model in (None, runs.describe(run).weights):
            yield row, run


def _not_the_papers(table: StoredTable, row: TableRow) -> list[str]:
    """Return what is stored as the paper's numbers and is not, a line each."""
    paper = load_paper_table(table.table)
    printed = paper.row(row.row)
    expected = [printed.clean if printed else None]
    for one in table.columns:
        attack = attack_of(one.attack, source=f"{table_title(table.table)}, {one.title}")
        column = paper.column(attack, one.grid_restarts, ours_only=one.ours_only)
        expected.append(paper_number(paper, row.row, column))
    return [
        f"{table_title(table.table)} has {cell.by_paper} as the paper's number for {row.row}, "
        f"expected {right}"
        for cell, right in zip((row.clean, *row.cells), expected, strict=True)
        if cell.by_paper != right
    ]


def in_papers_order(table: StoredTable) -> StoredTable:
    """Return the table with its columns in the paper's order, by their attacks.

    Columns that the paper does not have follow, ours first. The paper's columns that are missing
    are empty; columns of another ε are left out, since no claim is about them.

    Args:
      table: as read; it may have been made with another grid.

    Raises:
      InputError: a column's attack is not valid.
    """
    paper = load_paper_table(table.table)
    places: dict[int, int] = {}
    ours, others = [], []
    for i, column in enumerate(table.columns):
        source = f"{table_title(table.table)}, {column.title}"
        attack = attack_of(column.attack, source=source)
        place = paper_place(paper, attack, column.grid_restarts)
        if column.ours_only:
            ours.append(i)
        elif place is not None and place not in places:
            places[place] = i
        elif round(attack.eps * 255, 4) in {one.eps for one in paper.columns}:
            others.append(i)
    order = [*map(places.get, range(len(paper.columns))), *ours, *others]
    columns = [_NOT_MADE if i is None else table.columns[i] for i in order]
    rows = [
        dataclasses.replace(row, cells=tuple(Cell() if i is None else row.cells[i] for i in order))
        for row in table.rows
    ]
    return dataclasses.replace(table, columns=tuple(columns), rows=tuple(rows))


def beside_long_run(
    row: TableRow, columns: Sequence[Column], long_run: StoredTable | None
) -> TableRow:
    """Add the numbers of a longer run to a row, by attack.

    Args:
      row: of a table of ours.
      columns: its adversarial columns.
      long_run: the longer run's table; None, or one without the row: nothing is added.
    """
    found = long_run.row(row.row) if long_run is not None else None
    if long_run is None or found is None:
        return row
    theirs = {
        (_settings(column.attack), column.grid_restarts): cell
        for column, cell in zip(long_run.columns, found.cells, strict=True)
        if cell.ours is not None
    }
    cells = tuple(
        dataclasses.replace(
            cell, long_run=theirs.get((_settings(column.attack.to_json()), column.grid_restarts))
        )
        for cell, column in zip(row.cells, columns, strict=True)
    )
    clean = found.clean if found.clean.ours is not None else None
    return dataclasses.replace(
        row, clean=dataclasses.replace(row.clean, long_run=clean), cells=cells
    )


def unsupported(table: StoredTable, row: TableRow, records: Sequence[AttackRecord]) -> list[str]:
    """Return the numbers of a row that do not follow from any result, a line each.

    Args:
      table: as read.
      row: of the table.
      records: all results of the row's run.
    """
    found = []
    clean = row.clean.ours
    said = [100 * np.mean(r.clean_correct) for r in records if len(r.labels) == row.clean.images]
    if clean is not None and not any(math.isclose(one, clean) for one in said):
        found.append(_missing(table, row, clean, "clean", said))
    for column, cell in zip(table.columns, row.cells, strict=True):
        for number in (cell, cell.further):
            if number is None or number.ours is None:
                continue
            restarts = number.restarts or 1
            said = [
                100 * record.accuracy_at(restarts)
                for record in records
                if _settings(record.settings["attack"]) == _settings(column.attack)
                and len(record.labels) == number.images
                and number.restarts is not None
                and record.complete_to(restarts)
            ]
            if not any(math.isclose(one, number.ours) for one in said):
                found.append(_missing(table, row, number.ours, column.title, said))
    return found


def records_by_column(
    table: StoredTable, row: TableRow, records: Sequence[AttackRecord]
) -> dict[int, AttackRecord]:
    """Return the results behind a row's numbers, by adversarial column from 0.

    Args:
      table: as read.
      row: of the table.
      records: all results of the row's run.
    """
    return {
        i: record
        for i, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True))
        for record in records
        if _settings(record.settings["attack"]) == _settings(column.attack)
        and len(record.labels) == cell.images
        and record.complete_to(cell.restarts or 1)
    }


def _missing(
    table: StoredTable, row: TableRow, number: float, title: str, said: Sequence[float]
) -> str:
    found = "there are none" if not said else f"they give {said[0]:.1f}%"
    return (
        f"{table_title(table.table)} has {number:.1f}% for {row.row}, {title}: expected results "
        f"with this number, but {found}"
    )


def check_published(results: Path, name: str) -> list[AttackRecord]:
    """Return a published model's results, which have to give the numbers of its tables.

    Args:
      results: the folder that holds published/.
      name: "<dataset>/<row>", as in "mnist/clp".

    Raises:
      InputError: a table, a result or a number is missing or wrong.
    """
    dataset, row = name.split("/")
    records: list[AttackRecord] = []
    for number in dataset_spec(dataset).tables:
        file = table_file(results / SCALE, number)
        table = read_table(file)
        shown = table.row(row)
        if shown is None or shown.model is None:
            raise InputError(f"{file} has no numbers of {row}: restore it with git checkout")
        run = published_run(name, folder=results)
        records = records or records_of(run)
        problems = unsupported(table, shown, records)
        if problems:
            raise InputError(f"{run.attacks}: {problems[0]}; restore them with git checkout")
    return records or records_of(published_run(name, folder=results))


def same_attack(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two stored attacks are equal, except for restarts and execution."""
    return _settings(one) == _settings(other)


def _settings(attack: Mapping[str, Any]) -> str:
    """Return the settings of an attack, without restarts and execution, as a key."""
    said = {key: value for key, value in attack.items() if key not in ("restarts", *EXECUTION)}
    if "phases" in attack:
        said["phases"] = [
            phase | {"attack": {k: v for k, v in phase["attack"].items() if k not in EXECUTION}}
            for phase in attack["phases"]
        ]
    return json.dumps(said, sort_keys=True)


def _current(row: TableRow, run: RunDir) -> TableRow:
    shown = any(cell.ours is not None for cell in (row.clean, *row.cells))
    if not shown or row.model is None:  # early versions recorded no models
        return row
    if not run.finished:
        problem = "its model no longer exists"
    elif results.weights_now(run) != row.model:
        problem = "its model has changed since the table was made: make it again"
    else:
        return row
    return dataclasses.replace(
        row,
        clean=Cell(by_paper=row.clean.by_paper),
        cells=tuple(Cell(by_paper=cell.by_paper) for cell in row.cells),
        problems=(*row.problems, problem),
    )
