"""Numbers that differ from the paper's, with the facts that may explain them."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from alp_repro.attacks import PGD
from alp_repro.evaluation import AttackRecord, wilson_interval
from alp_repro.evaluation.record import new_record
from alp_repro.reporting import table_files
from alp_repro.reporting.differences import (
    Movement,
    differences,
    differs_significantly,
    fisher_p,
    movement,
)
from alp_repro.reporting.extrapolation import expected_standing
from alp_repro.reporting.spread import Spread, SpreadCell, SpreadRow
from alp_repro.reporting.stored_tables import StoredTable, read_table
from alp_repro.reporting.tables import Cell, Column, TableRow

ROOT = Path(__file__).resolve().parents[2]
WEAK = PGD(eps=76.5 / 255, eps_iter=2.55 / 255, nb_iter=40)
STRONG = PGD(eps=76.5 / 255, eps_iter=50 / 255, nb_iter=200, restarts=20)
COLUMNS = [Column(WEAK, 1, images=1000), Column(STRONG, 10000, images=1000)]


def interval(right: int) -> tuple[float, float]:
    low, high = wilson_interval(right, 1000)
    return 100 * low, 100 * high


@pytest.fixture
def table(tmp_path: Path) -> StoredTable:
    """CLP below the paper in the first column, above it in the second; Plain as the paper."""
    cells = (
        Cell(54.0, *interval(540), 1, 62.4, 1000),
        Cell(9.0, *interval(90), 20, 4.1, 1000),
    )
    rows = [
        TableRow("plain", "Plain", Cell(99, *interval(990), None, 99.2, 1000), (Cell(), Cell())),
        TableRow("clp", "CLP", Cell(98.3, *interval(983), None, 98.8, 1000), cells, model="0"),
    ]
    details = {"table": 1, "scale": "published", "date": "2026-11-29", "revision": "abc"}
    folder = tmp_path / "published" / "tables"
    table_files.write_table(folder, "table1", rows, COLUMNS, heading="Table 1", details=details)
    return read_table(folder / "table1.json")


def test_each_fact_stands_below_the_number_that_it_bears_on(table: StoredTable) -> None:
    spread_cells = [
        SpreadCell(mean=98.0, low=97.0, high=99.0),
        SpreadCell(mean=45.0, low=42.0, high=48.0),
        SpreadCell(mean=None, low=None, high=None),
    ]
    spread = Spread(
        table=1,
        scale="seeds",
        heading="",
        columns=("clean", *(column.title for column in table.columns)),
        rows=(
            SpreadRow(
                row="clp",
                label="CLP",
                seeds=(0, 1, 2),
                collapsed=(),
                cells=tuple(spread_cells),
                epochs=30,
            ),
        ),
        date="",
        revision="",
    )
    weak, strong = differences(
        table,
        changes={"clp": "epochs 15 (paper 500)"},
        movements={("clp", 0): Movement(58.0, 66.5, 10)},
        spread=spread,
    )
    assert weak.what == (
        "CLP, ε_i=2.55, n=40, r=1: 54.0% [50.9, 57.1] (n=1000, r=1), 8.4 points below the paper's "
        "62.4%"
    )
    trained, moved, others = weak.facts
    assert trained == "trained with epochs 15 (paper 500)"
    assert "first 200 evaluation images" in moved and "58.0 to 66.5%" in moved
    assert "3 of 30 epochs, none at chance" in others and "45.0% (42.0 to 48.0)" in others
    assert "20 of the paper's 10000 restarts" in strong.facts[0]


def record(first_break: np.ndarray, *, reached: int) -> AttackRecord:
    n = len(first_break)
    fresh = new_record(
        labels=np.zeros(n, int),
        indices=np.arange(n),
        clean_predictions=np.zeros(n, int),
        settings={},
    )
    reach = np.where(first_break < 0, reached, first_break + 1)
    return dataclasses.replace(fresh, first_break=first_break, next_restart=reach)


def test_a_fit_tells_what_more_restarts_would_leave() -> None:
    """Of images whose chances are beta-distributed the share that stands is known."""
    draws = np.random.default_rng(0)
    chances = draws.beta(0.2, 0.1, 4000)
    first = np.minimum(draws.geometric(np.maximum(chances, 1e-12)) - 1, 10**6)
    first_break = np.where(first < 1000, first, -1)
    found = expected_standing(first_break, reached=1000, restarts=10_000)
    assert found is not None
    low, high = found
    truth = float(np.mean(first >= 10_000))
    assert low <= high and abs(low - truth) < 0.012 and high - truth < 0.02
    # Images that never break stand after any number of restarts.
    half = np.concatenate([first_break, np.full(4000, -1)])
    _, high = expected_standing(half, reached=1000, restarts=10_000) or (0, 0)
    assert abs(high - (0.5 + truth / 2)) < 0.02
    assert expected_standing(first_break[:10], reached=1000, restarts=10_000) is None


@pytest.mark.parametrize(
    ("by_paper", "told"), [(1.0, "explains only a part"), (8.0, "may explain")]
)
def test_fewer_restarts_explain_no_more_than_a_fit_says(
    table: StoredTable, by_paper: float, told: str
) -> None:
    # Next to none of what stood after the first restart broke later.
    first = np.concatenate([np.zeros(880, int), np.arange(30) % 19 + 1, np.full(90, -1)])
    cell = dataclasses.replace(table.rows[1].cells[1], by_paper=by_paper, ours=9.0)
    if by_paper == 8.0:  # three quarters of it broke
        first = np.concatenate([np.zeros(600, int), np.arange(300) % 19 + 1, np.full(100, -1)])
        cell = dataclasses.replace(cell, ours=30.0, by_paper=8.0)
    clp = dataclasses.replace(table.rows[1], cells=(table.rows[1].cells[0], cell))
    changed = dataclasses.replace(table, rows=(clp,))
    *_, strong = differences(
        changed,
        changes={},
        movements={},
        records={("clp", 1): record(first, reached=20)},
    )
    assert told in strong.facts[0]


def test_what_all_attacks_leave_above_the_papers_is_told(table: StoredTable) -> None:
    first = np.where(np.arange(1000) < 905, 0, -1)
    other = np.where(np.arange(1000) >= 5, 0, -1)
    rows = (table.rows[1],)
    told = differences(
        dataclasses.replace(table, rows=rows),
        changes={},
        movements={},
        records={("clp", 0): record(first, reached=1), ("clp", 1): record(first, reached=20)},
    )
    assert "9.5% survive all 2 attacks" in " ".join(told[-1].facts)
    told = differences(
        dataclasses.replace(table, rows=rows),
        changes={},
        movements={("clp", 0): Movement(58.0, 66.5, 10)},
        records={("clp", 0): record(other, reached=1), ("clp", 1): record(first, reached=20)},
    )
    assert "together" not in " ".join(told[-1].facts)  # next to nothing stands under both
    # Beside the looks at the first 200 images stands what the finished model leaves of these.
    assert "on these images the finished model has 2.5%" in " ".join(told[0].facts)


def test_two_samples_are_tested_not_our_interval_alone() -> None:
    # 98.1 lies outside [96.3, 98.0]; of 1000 images each the two do not differ.
    assert not differs_significantly(Cell(97.3, 96.1, 98.0, 1, 98.1, 1000))
    assert differs_significantly(Cell(53.8, 50.7, 56.9, 1, 62.4, 1000))
    assert not differs_significantly(Cell())


def test_fishers_test_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    for trials, of_other in ((1, 1), (12, 1000), (200, 1000), (1000, 1000)):
        for _ in range(10):
            count, other = generator.integers(0, [trials + 1, of_other + 1]).tolist()
            table = [[count, trials - count], [other, of_other - other]]
            expected = scipy.stats.fisher_exact(table).pvalue
            assert fisher_p(count, trials, other, of_other) == pytest.approx(expected, rel=1e-9)
    assert fisher_p(500, 1000, 500, 1000) == 1.0


def test_movement_is_of_the_last_fifth_of_the_looks(tmp_path: Path) -> None:
    log = tmp_path / "training.csv"
    lines = [f"{e},{0.1 if e < 80 else 0.5 + e % 3 / 100}" for e in range(100)]
    log.write_text("epoch,test_adversarial_accuracy\n" + "\n".join(lines) + "\n")
    assert movement(log) == Movement(50.0, 52.0, 20)
    log.write_text("epoch,test_adversarial_accuracy\n" + "\n".join(lines[:2]) + "\n")
    assert movement(log) is None
    log.write_text("epoch,loss\n0,1.0\n")
    assert movement(log) is None


def test_the_claims_page_tells_every_difference_of_the_published_table(tmp_path: Path) -> None:
    results = ROOT / "results"
    command = [
        *(sys.executable, "-m", "experiments.claims"),
        *(f"--runs_dir={results}", f"--out_dir={tmp_path}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # What figures show is read from the numbers that they were drawn from.
    assert "figure" in done.stdout and not re.search(r"figure\d: not yet tested", done.stdout)
    table = read_table(results / "published/tables/table1.json")
    differing = [
        c for row in table.rows for c in (row.clean, *row.cells) if differs_significantly(c)
    ]
    assert differing
    told = json.loads((tmp_path / "claims.json").read_text())["differences"]["1"]
    assert len(told) == len(differing)
    page = (tmp_path / "claims.md").read_text()
    assert all(f"\n- {one['what']}\n" in page for one in told)
    assert "\n  - trained with" in page
