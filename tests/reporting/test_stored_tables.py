"""A stored table is read only when its numbers can be, and are, those of its results."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alp_repro import files
from alp_repro.errors import InputError
from alp_repro.reporting.stored_tables import (
    StoredTable,
    check_supported,
    in_papers_order,
    read_table,
    table_file,
)
from alp_repro.reporting.tables import Cell

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
Rows = list[dict[str, Any]]


def put(row: int, **numbers: float | None) -> Callable[[dict[str, Any]], None]:
    """Change numbers of a row's first adversarial column."""
    return lambda table: table["rows"][row]["cells"][0].update(numbers)


def twice(table: dict[str, Any]) -> None:
    table["rows"].append(table["rows"][0])


def without_columns(table: dict[str, Any]) -> None:
    table["columns"] = []


def without_a_column(table: dict[str, Any]) -> None:
    table["columns"].pop()


def of_another_number(table: dict[str, Any]) -> None:
    table["table"] = 2


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (put(1, ours=73.8), "is outside its interval"),
        (put(1, ours=-5.0), "ours is -5: expected a percentage from 0 to 100"),
        (put(1, ours=500.0), "ours is 500"),
        (put(1, low=60.0, high=50.0), "is outside its interval"),
        (put(1, low=53.0, high=54.0), "is not the interval of 53.8% of 1000 images"),
        (put(1, low=50.7012), "is not the interval"),
        (put(1, ours=53.84), "not a whole number"),
        (put(1, low=None), "all or none of ours, low and high"),
        (put(1, images=0), "images is 0"),
        (put(1, by_paper=624.0), "by_paper is 624"),
        (twice, "row plain is given 2 times"),
        (without_columns, "no columns"),
        (without_a_column, "has 4 cells, expected 3"),
        (of_another_number, "is of Table 2"),
    ],
)
def test_numbers_that_no_table_has_are_refused_in_a_line(
    spoil: Callable[[dict[str, Any]], None], told: str, tmp_path: Path
) -> None:
    table = files.read_json(table_file(PUBLISHED, 1))
    files.write_json(tmp_path / "table1.json", table)
    read_table(tmp_path / "table1.json")
    spoil(table)
    files.write_json(tmp_path / "table1.json", table)
    with pytest.raises(InputError, match=r"table1\.json is damaged") as caught:
        read_table(tmp_path / "table1.json")
    assert told in str(caught.value) and "\n" not in str(caught.value)


def swap_rows(rows: Rows) -> None:
    rows[1]["cells"], rows[2]["cells"] = rows[2]["cells"], rows[1]["cells"]


def swap_names(rows: Rows) -> None:
    for key in ("row", "model"):
        rows[1][key], rows[2][key] = rows[2][key], rows[1][key]


def swap_cells(rows: Rows) -> None:
    cells = rows[1]["cells"]
    cells[0], cells[1] = cells[1], cells[0]


def take_from_another(rows: Rows) -> None:
    rows[1]["cells"][0] = rows[3]["cells"][0]


def forget_images(rows: Rows) -> None:
    rows[1]["cells"][0]["images"] = None


def forget_restarts(rows: Rows) -> None:
    rows[1]["cells"][2]["restarts"] = None


def change_the_papers(rows: Rows) -> None:
    rows[1]["cells"][0]["by_paper"] = 53.8


def lose_the_papers(rows: Rows) -> None:
    """As by one wrong bit in the name of the number."""
    rows[1]["cells"][0]["by_papEr"] = rows[1]["cells"][0].pop("by_paper")


def take_the_papers_of_another_column(rows: Rows) -> None:
    rows[1]["cells"][0]["by_paper"] = rows[1]["cells"][1]["by_paper"]


WRONG = [swap_rows, swap_names, swap_cells, take_from_another]
WRONG += [forget_images, forget_restarts, change_the_papers, lose_the_papers]
WRONG += [take_the_papers_of_another_column]


@pytest.mark.parametrize("spoil", WRONG)
@pytest.mark.parametrize("noted", [True, False])
def test_numbers_that_no_result_says_are_refused(
    spoil: Callable[[Rows], None], noted: bool, tmp_path: Path
) -> None:
    for row in ("clp", "lsq"):
        shutil.copytree(
            PUBLISHED / "mnist" / row, tmp_path / row, ignore=shutil.ignore_patterns("model*")
        )
    file = tmp_path / "table1.json"
    table = files.read_json(table_file(PUBLISHED, 1))
    files.write_json(file, table)
    check_supported(read_table(file), tmp_path)
    spoil(table["rows"])
    for row in table["rows"]:
        row["model"] = row["model"] if noted else None  # as tables of before models were noted
    files.write_json(file, table)
    with pytest.raises(InputError, match=r"expected results with this number|as the paper's"):
        check_supported(read_table(file), tmp_path)


def with_columns(table: StoredTable, places: list[int]) -> StoredTable:
    """Of the table so many columns, in this order."""
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[i] for i in places),
        rows=tuple(
            dataclasses.replace(row, cells=tuple(row.cells[i] for i in places))
            for row in table.rows
        ),
    )


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("places", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 2], [2], [3]])
def test_columns_of_another_grid_are_told_by_their_attacks(number: int, places: list[int]) -> None:
    table = read_table(table_file(PUBLISHED, number))
    found = in_papers_order(with_columns(table, places))
    for row, whole in zip(found.rows, table.rows, strict=True):
        for place in range(3):
            assert row.cells[place] == (whole.cells[place] if place in places else Cell())
        assert row.cells[3:] == ((whole.cells[3],) if 3 in places else ())
    assert len(found.columns) == len(found.rows[0].cells)


def test_what_the_paper_did_not_run_takes_no_place_of_the_papers() -> None:
    table = read_table(table_file(PUBLISHED, 1))
    first = table.columns[0]
    longer, larger = (
        dataclasses.replace(first, attack={**first.attack, **change})
        for change in ({"nb_iter": 41}, {"eps": 0.5, "eps_iter": 0.02})
    )
    table = dataclasses.replace(table, columns=(larger, longer, *table.columns[2:]))
    found = in_papers_order(table)
    assert found.rows[0].cells[:2] == (Cell(), Cell())
    assert found.columns[3:] == (table.columns[3], longer)  # another ball is left out
    assert found.rows[0].cells[4] == table.rows[0].cells[1]
