"""Numbers that differ from the paper's, with the facts that may explain them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from alp_repro.attacks import PGD
from alp_repro.evaluation import wilson_interval
from alp_repro.reporting import table_files
from alp_repro.reporting.differences import (
    Movement,
    differences,
    differs_significantly,
    fisher_p,
    movement,
)
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
    assert "first 200 of the evaluation images" in moved and "58.0 and 66.5%" in moved
    assert "3 of 30 epochs, none at chance" in others and "45.0% (42.0 to 48.0)" in others
    assert "20 of the paper's 10000 restarts" in strong.facts[0]


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
