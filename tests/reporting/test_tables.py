from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from alp_repro import files
from alp_repro.attacks import Attack
from alp_repro.errors import InputError
from alp_repro.evaluation import attack_name, restarts
from alp_repro.evaluation.record import save_record
from alp_repro.reporting import tables
from alp_repro.reporting.tables import Cell, Column
from alp_repro.runs import RunDir

PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper" / "logit_pairing_paper.txt"
WEAK = Attack(eps=76.5 / 255, eps_iter=2.55 / 255, nb_iter=40)
STRONG = Attack(eps=76.5 / 255, eps_iter=50 / 255, nb_iter=200, restarts=3)
COLUMNS = [Column(WEAK, 1), Column(STRONG, 10000)]


def finished_run(folder: Path) -> RunDir:
    """A run with a model in name only: tables never load it."""
    run = RunDir(folder / "mnist" / "clp")
    run.path.mkdir(parents=True)
    run.model.touch()
    files.write_json(run.recipe, {"weights": "abc"})
    return run


def put_record(run: RunDir, attack: Attack, first_break: list[int], *, done: int) -> None:
    """A result of four images, the first of which is misclassified when clean."""
    described = {k: v for k, v in attack.to_json().items() if k != "restarts"}
    settings = {
        "attack": described, "num_images": 4, "seed": 0, "losses": False, "model": "abc",
    }  # fmt: skip
    record = restarts.AttackRecord(
        labels=np.arange(4, dtype=np.int32),
        indices=np.arange(4),
        clean_predictions=np.array([9, 1, 2, 3], np.int32),
        first_break=np.array(first_break, np.int32),
        next_restart=np.array([b + 1 if b >= 0 else done for b in first_break], np.int32),
        settings=settings,
        sessions=[],
    )
    save_record(run.attacks / attack_name(settings), record)


def test_cells_hold_ours_and_the_papers_numbers(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    put_record(run, WEAK, [0, -1, -1, -1], done=1)
    put_record(run, STRONG, [0, 2, -1, 0], done=3)
    row = tables.table_row(tables.load_paper_table(1), "clp", run, COLUMNS, num_images=4, seed=0)
    assert (row.clean.ours, row.clean.by_paper) == (75.0, 98.8)
    assert [cell.ours for cell in row.cells] == [75.0, 25.0]
    # The scale's three restarts stand beside the paper's ten thousand.
    assert [cell.by_paper for cell in row.cells] == [62.4, 4.1]
    assert row.complete and row.cells[1].restarts == 3


def test_what_is_not_done_is_a_dash(tmp_path: Path) -> None:
    paper, run = tables.load_paper_table(1), finished_run(tmp_path)
    put_record(run, STRONG, [0, -1, -1, -1], done=2)
    row = tables.table_row(paper, "clp", run, COLUMNS, num_images=4, seed=0)
    assert not row.complete and [cell.ours for cell in row.cells] == [None, None]
    assert tables.markdown_line(row, COLUMNS).count("–") == 3
    other_images = tables.table_row(paper, "clp", run, COLUMNS, num_images=5, seed=0)
    assert other_images.cells[1].ours is None


def test_an_attack_of_ours_gets_no_number_of_the_papers(tmp_path: Path) -> None:
    run, paper = finished_run(tmp_path), tables.load_paper_table(1)
    margin = Attack(eps=76.5 / 255, eps_iter=50 / 255, nb_iter=200, loss="margin")
    columns = [Column(margin, 10000), Column(STRONG, 10000, ours_only=True), Column(WEAK, 7)]
    row = tables.table_row(paper, "clp", run, columns, num_images=4, seed=0)
    assert [cell.by_paper for cell in row.cells] == [None, None, None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaterAttack(Attack):
    """An attack with a setting that nobody has thought of yet."""

    sharpness: float = 0.0


_SIZES = {"eps": 76.5 / 255, "eps_iter": 50 / 255, "nb_iter": 200, "restarts": 3}


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (Attack(**_SIZES, momentum=0.75), "momentum=0.75"),
        (Attack(**_SIZES, gradient_noise=0.1), "gradient_noise=25.5"),
        (Attack(**_SIZES, random_start=False), "random_start=false"),
        (Attack(**_SIZES, success="any"), "success=any"),
        (Attack(**_SIZES, target="random"), "target=random"),
        (LaterAttack(**_SIZES, sharpness=2.0), "sharpness=2.0"),
        (Attack(**{**_SIZES, "eps": 1.0}), "ε=255"),
    ],
)
def test_an_attack_that_is_not_the_papers_says_so_and_stands_beside_no_number(
    tmp_path: Path, attack: Attack, told: str
) -> None:
    run, paper = finished_run(tmp_path), tables.load_paper_table(1)
    put_record(run, STRONG, [0, 2, -1, 0], done=3)
    put_record(run, attack, [0, 0, 0, 0], done=3)
    columns = [paper.column(a, 10000) for a in (STRONG, attack)]
    row = tables.table_row(paper, "clp", run, columns, num_images=4, seed=0)
    assert [cell.ours for cell in row.cells] == [25.0, 0.0]  # each has a result of its own
    assert [cell.by_paper for cell in row.cells] == [4.1, None]
    assert told in columns[1].title and told not in columns[0].title


def test_a_column_of_another_execution_is_the_papers() -> None:
    paper = tables.load_paper_table(3)
    attack = Attack(eps=16 / 255, eps_iter=2 / 255, nb_iter=10, target="random", dtype="bfloat16")
    column = paper.column(attack, 1)
    assert column.title == "ε_i=2, n=10, r=1"  # the heading tells the dtype, the caption the target
    assert tables.load_paper_table(5).column(attack, 1).title.endswith("ours: target=random")


def test_markdown_csv_and_json_agree(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    put_record(run, WEAK, [0, -1, -1, -1], done=1)
    row = tables.table_row(tables.load_paper_table(1), "clp", run, COLUMNS, num_images=4, seed=0)
    tables.write_table(
        tmp_path, "table1", [row], COLUMNS, heading="Table 1", details={"scale": "quick"}
    )
    markdown = (tmp_path / "table1.md").read_text()
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table1.csv").read_text())))
    found = json.loads((tmp_path / "table1.json").read_text())
    assert "| 75.0% [30.1, 95.4] | 98.8% | 75.0% [30.1, 95.4] | 62.4% | – | 4.1% |" in markdown
    assert [line["ours"] for line in lines] == ["75.0", "75.0", ""]
    assert [line["paper"] for line in lines] == ["98.8", "62.4", "4.1"]
    assert found["scale"] == "quick"
    assert [cell["ours"] for cell in found["rows"][0]["cells"]] == [75.0, None]
    assert "n=200, r=10k (here r=3)" in markdown


@pytest.mark.parametrize(
    ("by_paper", "differs"), [(50.0, False), (30.0, False), (29.9, True), (None, False)]
)
def test_a_difference_is_one_that_exceeds_the_interval(
    by_paper: float | None, differs: bool
) -> None:
    assert Cell(50.0, 30.0, 70.0, 1, by_paper).differs is differs


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(InputError, match="--table=6"):
        tables.load_paper_table(6)


@pytest.mark.parametrize("number", tables.TABLES)
def test_the_reference_is_what_the_paper_prints(number: int) -> None:
    if not PAPER.exists():
        pytest.skip("the paper's text is not here")
    text = PAPER.read_text()
    end = text.index(f"\nTable {number}: ")
    block = text[text.rindex("\nModel\t", 0, end) : end]
    printed = [
        [float(p) for p in re.findall(r"([\d.]+)%", line.replace("*", "").split("\t", 1)[1])]
        for line in block.splitlines()
        if line.count("%") >= 4 and "\t" in line
    ]
    ours = [[r.clean, *r.adversarial] for r in tables.load_paper_table(number).rows]
    # The percentages of names such as "50% AT" stand before the first tab.
    assert ours == printed
