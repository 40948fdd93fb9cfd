"""Numbers over several seeds: mean and range, and the trainings that collapsed counted apart."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from absl import flags

from alp_repro import files
from alp_repro.attacks import PGD
from alp_repro.errors import InputError
from alp_repro.evaluation import wilson_interval
from alp_repro.reporting import report, spread, table_files
from alp_repro.reporting.spread import SpreadCell
from alp_repro.reporting.stored_tables import StoredTable, read_table, table_file
from alp_repro.reporting.tables import AT_CHANCE, Cell, Column, TableRow
from experiments.flags import settings
from experiments.running import rows

ROOT = Path(__file__).resolve().parents[2]
COLUMN = Column(PGD(eps=0.3, eps_iter=0.01, nb_iter=40), 1, images=500)


def row(name: str, clean: float, adversarial: float, mark: str = "") -> TableRow:
    cells = tuple(
        Cell(value, *interval(value), restarts, paper, 500)
        for value, restarts, paper in ((clean, None, 98.8), (adversarial, 1, 62.4))
    )
    return TableRow(name, name.upper(), cells[0], cells[1:], mark=mark)


def interval(percent: float) -> tuple[float, float]:
    low, high = wilson_interval(round(5 * percent), 500)
    return 100 * low, 100 * high


NOT_TRAINED = TableRow("plain", "PLAIN", Cell(), (Cell(),))
BY_SEED = {
    0: [row("clp", 98, 40), row("lsq", 97, 50), NOT_TRAINED],
    1: [row("clp", 99, 46), row("lsq", 10, 10, AT_CHANCE), NOT_TRAINED],
    7: [row("clp", 97, 34), row("lsq", 99, 60), NOT_TRAINED],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scale's folder with the tables of three seeds."""
    for seed, lines in BY_SEED.items():
        place = tmp_path / "seeds" / f"seed{seed}"
        details = {"table": 1, "scale": "seeds", "date": "2026-11-29", "revision": "abc"}
        table_files.write_table(
            place / "tables", "table1", lines, [COLUMN], heading="Table 1", details=details
        )
        for name in ("clp", "lsq"):
            described = {"weights": "0", "recipe": {"epochs": 30}}
            files.write_json(place / "mnist" / name / "recipe.json", described)
    return tmp_path / "seeds"


@pytest.fixture
def tables(folder: Path) -> dict[int, StoredTable]:
    return {seed: read_table(table_file(folder / f"seed{seed}", 1)) for seed in BY_SEED}


def test_mean_and_range_are_of_the_trainings_that_did_not_collapse(
    tables: dict[int, StoredTable],
) -> None:
    clp, lsq = spread.spread_rows(tables)
    assert (clp.row, clp.seeds, clp.collapsed) == ("clp", (0, 1, 7), ())
    assert clp.cells == (
        SpreadCell(mean=98, low=97, high=99, by_paper=98.8),
        SpreadCell(mean=40, low=34, high=46, by_paper=62.4),
    )
    assert (lsq.seeds, lsq.collapsed) == ((0, 1, 7), (1,))
    assert lsq.cells[1] == SpreadCell(mean=55, low=50, high=60, by_paper=62.4)


def test_where_all_collapsed_there_is_no_number(tables: dict[int, StoredTable]) -> None:
    (clp, lsq) = spread.spread_rows({1: tables[1]})
    assert lsq.collapsed == (1,) and {str(cell) for cell in lsq.cells} == {"–"}
    assert clp.cells[1].mean == 46


def test_tables_of_other_columns_are_not_averaged(tables: dict[int, StoredTable]) -> None:
    other = dataclasses.replace(tables[1].columns[0], title="another")
    tables[1] = dataclasses.replace(tables[1], columns=(other,))
    with pytest.raises(InputError, match="seeds 0 and 1 have different columns"):
        spread.spread_rows(tables)


def test_the_summary_is_written_and_shown_beside_the_tables(folder: Path) -> None:
    command = [sys.executable, "-m", "experiments.seeds", f"--runs_dir={folder.parent}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = "| LSQ | 3 of 30 epochs, 1 at chance | 98.0% (97.0 to 99.0) | 98.8% | 55.0% (50.0 to"
    assert line in done.stdout
    found = spread.spread_beside(folder.parent, 1)
    assert found is not None and found.rows[0].epochs == 30
    shown = table_files.to_markdown(BY_SEED[0], [COLUMN], heading="Table 1", spread=found)
    assert "- CLP, 3 of 30 epochs, none at chance: clean 98.0% (97.0 to 99.0); ε_i=2.55" in shown
    published = folder.parent / "published" / "tables"
    published.mkdir(parents=True)
    text = (folder / "seed0/tables/table1.json").read_text()
    (published / "table1.json").write_text(text)
    page = report.render(report.collect(published.parent))
    assert "Variation between trainings" in page and "3 of 30 epochs, 1 at chance" in page


def test_without_a_seed_the_command_says_what_makes_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.seeds", f"--runs_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--table=1 --scale=seeds --training_seed=0" in done.stderr
    assert not list(tmp_path.iterdir())


def test_each_seed_is_a_training_in_a_folder_of_its_own() -> None:
    jobs = {}
    for seed in (None, 0, 3):
        values = flags.FlagValues()
        settings.define_table_flags(values)
        values(["table", "--scale=seeds", *([] if seed is None else [f"--training_seed={seed}"])])
        settings.fill_in_table(values)
        jobs[seed] = rows.make_job(values, "clp")
    assert [job.run.path for job in jobs.values()] == [
        Path("runs/seeds/mnist/clp"),
        Path("runs/seeds/seed0/mnist/clp"),
        Path("runs/seeds/seed3/mnist/clp"),
    ]
    assert [job.values.seed for job in jobs.values()] == [0, 0, 3]
    assert settings.recipe(jobs[3].values).seed == 3


def test_a_damaged_summary_is_told_in_a_line(folder: Path) -> None:
    file = spread.spread_file(folder, 1)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"table": 1}))
    with pytest.raises(InputError, match="remove it to make it again"):
        spread.spread_beside(folder.parent, 1)


def put(**numbers: float | None) -> Callable[[dict[str, Any]], None]:
    """Change numbers of the second row's first adversarial column."""
    return lambda told: told["rows"][1]["cells"][1].update(numbers)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (put(mean=20.0), "row lsq, .*: 20 is not a mean of 3 numbers from 30 to 37.2"),
        (put(mean=36.0), "36 is not a mean of 3 numbers"),
        (put(low=50.0), "is not a mean of 3 numbers from 50 to 37.2"),
        (put(high=500.0), "high is 500: expected a percentage"),
        (put(mean=-5.0), "mean is -5"),
        (put(low=None), "all or none of mean, low and high"),
        (lambda told: told["rows"][1]["seeds"].append(2), "each seed once"),
        (lambda told: told["rows"][1]["collapsed"].append(9), "only trained ones"),
        (lambda told: told["rows"][1]["cells"].pop(), "has 3 cells, expected 4"),
        (lambda told: told["rows"].append(told["rows"][0]), "row clp is given 2 times"),
        (lambda told: told.update(table=2), "is of Table 2"),
    ],
)
def test_numbers_that_no_trainings_have_are_refused_in_a_line(
    spoil: Callable[[dict[str, Any]], None], what: str, tmp_path: Path
) -> None:
    told = files.read_json(spread.spread_file(ROOT / "results" / "seeds", 1))
    file = spread.spread_file(tmp_path, 1)
    files.write_json(file, told)
    assert spread.read_spread(file).rows
    spoil(told)
    files.write_json(file, told)
    with pytest.raises(InputError, match=f"is damaged .*{what}") as caught:
        spread.read_spread(file)
    assert "\n" not in str(caught.value)
