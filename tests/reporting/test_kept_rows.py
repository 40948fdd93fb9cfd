"""Rows of a stored table that are not made again stay in it, with all their numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from alp_repro.attacks import PGD, attack_of
from alp_repro.reporting.kept_rows import with_kept_rows
from alp_repro.reporting.stored_tables import StoredTable, read_table, table_file
from alp_repro.reporting.table_files import write_table
from alp_repro.reporting.tables import Column, TableRow, load_paper_table

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
PAPER = load_paper_table(1)
STORED = read_table(table_file(PUBLISHED, 1))


def columns_at(places: list[int]) -> list[Column]:
    """Columns of the stored table as a command makes them."""
    found = []
    for i in places:
        one = STORED.columns[i]
        attack = attack_of(one.attack)
        column = PAPER.column(attack, one.grid_restarts, ours_only=one.ours_only)
        found.append(dataclasses.replace(column, images=one.images))
    return found


def row_at(name: str, places: list[int]) -> TableRow:
    """A row of the stored table, with these columns."""
    row = STORED.row(name)
    assert row is not None
    return dataclasses.replace(row, cells=tuple(row.cells[i] for i in places))


def written_again(names: list[str], columns: list[Column], places: list[int], to: Path):
    rows = [row_at(name, places) for name in names]
    found, heads = with_kept_rows(rows, columns, STORED, PAPER)
    write_table(
        to,
        "table1",
        found,
        heads,
        heading="",
        details={"table": 1, "scale": "published", "date": "", "revision": ""},
    )
    return read_table(to / "table1.json")


def told(table: StoredTable) -> dict[tuple[str, str], object]:
    """Every cell by its row and its attack."""
    return {
        (row.row, json.dumps(column.attack, sort_keys=True)): cell
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.ours is not None
    }


@pytest.mark.parametrize("names", [["plain"], ["lsq", "plain"], ["at100_alp"]])
@pytest.mark.parametrize("places", [[0, 1, 2, 3], [0, 1, 2], [2, 0]])
def test_nothing_is_lost(names: list[str], places: list[int], tmp_path: Path) -> None:
    found = written_again(names, columns_at(places), places, tmp_path)
    assert told(found) == told(STORED)
    assert [row.row for row in found.rows] == [row.row for row in STORED.rows]
    assert [row.clean for row in found.rows] == [row.clean for row in STORED.rows]
    titles = {column.title for column in STORED.columns}
    assert {column.title for column in found.columns} == titles


def test_of_another_grid_both_stand_there(tmp_path: Path) -> None:
    attack = PGD(eps=0.3, eps_iter=0.1, nb_iter=3)
    found = written_again(["plain"], [PAPER.column(attack, 1)], [0], tmp_path)
    before = told(STORED)
    assert {key: cell for key, cell in told(found).items() if key in before} == before
    assert len(told(found)) == len(before) + 1 and len(found.columns) == 5


def test_a_new_models_row_takes_no_number_of_the_old_one() -> None:
    new = dataclasses.replace(row_at("plain", [0]), model="another")
    rows, _ = with_kept_rows([new], columns_at([0]), STORED, PAPER)
    assert [cell.ours is None for cell in rows[0].cells] == [False, True, True, True]


def test_where_all_rows_are_made_nothing_is_kept() -> None:
    rows = [row_at(row.row, [0]) for row in STORED.rows]
    assert with_kept_rows(rows, columns_at([0]), STORED, PAPER) == (rows, columns_at([0]))
