"""Tables as `table_files.write_table` wrote them, read again and compared with the models there."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import runs, shipped
from alp_repro.attacks import EXECUTION, attack_of
from alp_repro.data import dataset_spec
from alp_repro.errors import InputError
from alp_repro.evaluation.published import SCALE, published_run, records_of
from alp_repro.evaluation.record_file import load_record
from alp_repro.reporting import results
from alp_repro.reporting.table_check import check_rows
from alp_repro.reporting.table_names import TableName, table_stem, table_title
from alp_repro.reporting.tables import Cell, Column, TableRow, load_paper_table, paper_place
from alp_repro.runs import RunDir
from alp_repro.validation import decoding

if TYPE_CHECKING:
    from alp_repro.evaluation import AttackRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredColumn:
    """A column: its title, the attack's settings as stored, how many images."""

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
        """The row of this name; None: there is none."""
        return next((row for row in self.rows if row.row == name), None)


def shipped_table(number: TableName) -> StoredTable | None:
    """The published table of this number that comes with the project, if it does.

    Raises:
      InputError: the file is something else.
    """
    file = table_file(shipped.folder("results") / SCALE, number)
    return read_table(file) if file.exists() else None


def table_file(folder: Path, number: TableName) -> Path:
    """Where a scale's folder keeps a table."""
    return folder / "tables" / f"{table_stem(number)}.json"


def read_table(file: Path) -> StoredTable:
    """Read a table, and check that its numbers can be those of one.

    Raises:
      InputError: the file is something else, or has numbers that no table has.
    """
    advice = "remove it to have it made again"
    table: StoredTable = decoding.read_json(file, StoredTable, extra_keys=True, advice=advice)
    try:
        if file.name != table_file(Path(), table.table).name:
            raise InputError(f"it says that it is {table_title(table.table)}")
        if not table.columns:
            raise InputError("it has no columns")
        check_rows(table.rows, [column.title for column in table.columns])
    except InputError as error:
        raise InputError(f"{file} is damaged ({error}): {advice}") from error
    return table


def current(table: StoredTable, models: Path) -> StoredTable:
    """Return the table without the numbers of models that are no longer those in their folders.

    Args:
      table: as read.
      models: the folder of a data set's runs, <scale>/<dataset>.

    Raises:
      InputError: a number is not what the results of its model say, or a result is damaged.
    """
    check_supported(table, models)
    rows = tuple(_current(row, RunDir(models / row.row)) for row in table.rows)
    return dataclasses.replace(table, rows=rows)


def check_supported(table: StoredTable, models: Path) -> None:
    """Check that the results of a table's models say its numbers.

    A row whose model is not the one in its folder has no results there, and one without results
    that does not say its model or how many images is of a time before these were noted: both pass.

    Args:
      table: as read.
      models: the folder of a data set's runs, <scale>/<dataset>.

    Raises:
      InputError: a number is another than the results say, or none says it.
    """
    for row in table.rows:
        run = RunDir(models / row.row)
        if row.clean.ours is None and all(cell.ours is None for cell in row.cells):
            continue
        if not run.recipe.exists() or row.model not in (None, runs.describe(run).weights):
            continue
        # Names with a dot are what a process that was killed while writing left behind.
        records = [load_record(path) for path in sorted(run.attacks.glob("[!.]*.npz"))]
        if not records and None in (row.model, row.clean.images):
            continue
        told = [one for one in records if row.model in (None, one.settings.get("model"))]
        problems = unsupported(table, row, told) + _not_the_papers(table, row)
        if problems:
            raise InputError(f"{run.attacks}: {problems[0]}; make the table again")


def _not_the_papers(table: StoredTable, row: TableRow) -> list[str]:
    """Which numbers stand there as the paper's without being them, a line each."""
    printed = {one.row: one for one in load_paper_table(table.table).rows}.get(row.row)
    allowed = [{None}, {None}] if printed is None else [{printed.clean}, set(printed.adversarial)]
    cells = ((row.clean, allowed[0]), *((cell, allowed[1]) for cell in row.cells))
    return [
        f"{table_title(table.table)} has {cell.by_paper:g}% as the paper's for {row.row}, which it "
        "is not"
        for cell, numbers in cells
        if cell.by_paper is not None and cell.by_paper not in numbers
    ]


def in_papers_order(table: StoredTable) -> StoredTable:
    """Return the table with the paper's columns in the paper's places, by their attacks.

    Its other columns follow, ours alone first. A column of the paper's that it has not is empty;
    columns of another size than the paper's are left out, since they bear on nothing that it says.

    Args:
      table: as read; it may have been made with another grid.

    Raises:
      InputError: a column's attack is none.
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
    """The row with the numbers of a longer run beside its own, of the same attacks.

    Args:
      row: of a table of ours.
      columns: its adversarial columns.
      long_run: the longer run's table; None, or one without the row: nothing stands beside.
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
    """Which numbers of a table's row no result says, a line each; [] when all are borne out.

    Args:
      table: as read.
      row: of it.
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
    """Return the result that says a number, by adversarial column from 0, where one does.

    Args:
      table: as read.
      row: of it.
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


def standing_at(record: AttackRecord, restarts: int) -> np.ndarray:
    """Return what stands after so many restarts, bool [n]."""
    broken = (record.first_break >= 0) & (record.first_break < record.allowed(restarts))
    return ~broken


def _missing(
    table: StoredTable, row: TableRow, number: float, title: str, said: Sequence[float]
) -> str:
    what = "none is there" if not said else f"they say {said[0]:.1f}%"
    return (
        f"{table_title(table.table)} has {number:.1f}% for {row.row}, {title}, of which results "
        f"must be there: {what}"
    )


def check_published(results: Path, name: str) -> None:
    """Checks that a published model's results are there, and say what its tables say.

    Args:
      results: the folder that holds published/.
      name: "<dataset>/<row>", as in "mnist/clp".

    Raises:
      InputError: a table, a result or a number is missing or another.
    """
    dataset, row = name.split("/")
    for number in dataset_spec(dataset).tables:
        file = table_file(results / SCALE, number)
        table = read_table(file)
        shown = table.row(row)
        if shown is None or shown.model is None:
            raise InputError(f"{file} has no numbers of {row}: restore it with git checkout")
        run = published_run(name, folder=results)
        problems = unsupported(table, shown, records_of(run))
        if problems:
            raise InputError(f"{run.attacks}: {problems[0]}; restore them with git checkout")


def same_attack(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two stored attacks do the same, but for restarts and what they are computed in."""
    return _settings(one) == _settings(other)


def _settings(attack: Mapping[str, Any]) -> str:
    """What tells an attack, whatever it is computed in and a scale bounds its restarts to."""
    said = {key: value for key, value in attack.items() if key not in ("restarts", *EXECUTION)}
    if "phases" in attack:
        said["phases"] = [
            phase | {"attack": {k: v for k, v in phase["attack"].items() if k not in EXECUTION}}
            for phase in attack["phases"]
        ]
    return json.dumps(said, sort_keys=True)


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
