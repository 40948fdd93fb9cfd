"""Combines newly computed rows of a table with the stored ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from alp_repro.attacks import attack_of
from alp_repro.reporting.stored_tables import StoredColumn, StoredTable, same_attack
from alp_repro.reporting.tables import Cell, Column, PaperTable, TableRow


def with_kept_rows(
    rows: Sequence[TableRow], columns: Sequence[Column], stored: StoredTable, paper: PaperTable
) -> tuple[list[TableRow], list[Column]]:
    """Return the rows and columns of a table, together with stored rows that were not computed.

    A column that only the stored table has is kept if a kept row has a number in it; new rows get
    the stored numbers of the same model there.

    Args:
      rows, columns: as computed now.
      stored: the table that they replace.
      paper: defines the order of rows; those that it does not have come last.

    Raises:
      InputError: an attack of the stored table is not valid.
    """
    made = {row.row: row for row in rows}
    kept = [row for row in stored.rows if row.row not in made]
    if not kept:
        return list(rows), list(columns)
    places = [_place(column, stored.columns) for column in columns]
    further = [
        i
        for i in range(len(stored.columns))
        if i not in places and any(row.cells[i].ours is not None for row in kept)
    ]
    heads = [*columns, *(_column(stored, i, columns) for i in further)]
    heads = [
        _with_restarts(head, [row.cells[i] for row in kept] if i is not None else [])
        for head, i in zip(heads, [*places, *further], strict=True)
    ]
    found = {row.row: _lengthened(row, stored, further) for row in rows}
    for row in kept:
        cells = [Cell() if i is None else row.cells[i] for i in (*places, *further)]
        found[row.row] = dataclasses.replace(row, cells=tuple(cells))
    order = [row.row for row in paper.rows if row.row in found]
    order += [name for name in found if name not in order]
    return [found[name] for name in order], heads


def _place(column: Column, stored: Sequence[StoredColumn]) -> int | None:
    """Return a column's position in the stored table; None: it is not there."""
    for i, one in enumerate(stored):
        if column.grid_restarts == one.grid_restarts and same_attack(
            column.attack.to_json(), one.attack
        ):
            return i
    return None


def _column(stored: StoredTable, place: int, beside: Sequence[Column]) -> Column:
    """Convert a stored column, with the caption of those beside it."""
    one = stored.columns[place]
    source = f"the stored table, {one.title}"
    attack = attack_of(one.attack, source=source)
    return dataclasses.replace(
        beside[0],
        attack=attack,
        grid_restarts=one.grid_restarts,
        ours_only=one.ours_only,
        images=one.images,
        row_restarts=(),
    )


def _with_restarts(column: Column, cells: Sequence[Cell]) -> Column:
    """Add the restarts of kept rows to a column's title, if they differ."""
    found = {*(column.row_restarts or (column.attack.restarts,))}
    found |= {cell.restarts for cell in cells if cell.restarts is not None}
    return dataclasses.replace(column, row_restarts=tuple(sorted(found)) if len(found) > 1 else ())


def _lengthened(row: TableRow, stored: StoredTable, further: Sequence[int]) -> TableRow:
    """Add the stored numbers of a new row's model in further columns."""
    before = stored.row(row.row)
    same = before is not None and before.model is not None and before.model == row.model
    cells = [before.cells[i] if before is not None and same else Cell() for i in further]
    return dataclasses.replace(row, cells=(*row.cells, *cells))
