"""Claims: the rule on numbers, on both sides of each threshold."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from alp_repro import files
from alp_repro.evaluation import wilson_interval
from alp_repro.reporting import claims, tables
from alp_repro.reporting.claims import Claim, Condition, Number
from alp_repro.reporting.stored_tables import StoredColumn, StoredTable
from alp_repro.reporting.tables import Cell, TableRow

CLAIMS = {claim.name: claim for claim in claims.load_claims()}
CONDITIONS = [(name, i) for name, claim in CLAIMS.items() for i in range(len(claim.conditions))]


def cell(percent: float, *, restarts: int | None = 10000, images: int = 20000) -> Cell:
    low, high = wilson_interval(round(images * percent / 100), images)
    return Cell(percent, 100 * low, 100 * high, restarts, None, images)


def as_published() -> dict[int, StoredTable]:
    """Tables as if our numbers were the paper's, on many images."""
    found = {}
    for number in tables.TABLES:
        rows = tuple(
            TableRow(r.row, r.label, cell(r.clean), tuple(cell(value) for value in r.adversarial))
            for r in tables.load_paper_table(number).rows
        )
        found[number] = StoredTable(
            table=number, scale="made", date="", revision="", columns=(), rows=rows
        )
    return found


def put(found: dict[int, StoredTable], side: Number, new: Cell) -> None:
    """Replaces a number."""
    rows = [
        dataclasses.replace(
            row,
            cells=tuple(new if i + 1 == side.column else old for i, old in enumerate(row.cells)),
        )
        if row.row == side.row
        else row
        for row in found[side.table].rows
    ]
    found[side.table] = dataclasses.replace(found[side.table], rows=tuple(rows))


@pytest.mark.parametrize("name", CLAIMS)
def test_the_papers_own_numbers_reproduce_its_claims(name: str) -> None:
    judged = claims.judge(CLAIMS[name], as_published())
    assert [c.state for c in judged.conditions] == ["holds"] * len(judged.conditions)
    assert judged.verdict == "reproduced"


@pytest.mark.parametrize(("name", "i"), CONDITIONS)
def test_a_condition_turns_at_its_threshold(name: str, i: int) -> None:
    claim, found = CLAIMS[name], as_published()
    condition = claim.conditions[i]
    right = condition.right
    base = 40.0 if isinstance(right, Number) else float(right)
    if isinstance(right, Number):
        put(found, right, cell(base))
    upwards = 1 if condition.above is not None else -1
    edge = base + upwards * condition.by
    for distance, state in ((2, "holds"), (0, "undecided"), (-2, "fails")):
        put(found, condition.left, cell(edge + upwards * distance))
        judged = claims.judge(claim, found)
        assert judged.conditions[i].state == state
        if state != "holds":
            assert judged.verdict != "reproduced"


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        (["holds", "holds"], "reproduced"),
        (["holds", "fails"], "partly"),
        (["holds", "undecided"], "partly"),
        (["holds", "untested"], "partly"),
        (["fails", "fails"], "not"),
        (["fails", "untested"], "not"),
        (["untested", "untested"], "not yet tested"),
        (["undecided"], "not yet tested"),
    ],
)
def test_the_rule(states: list[claims.State], verdict: str) -> None:
    assert claims.verdict_of(states) == verdict


CLAIM = Claim(
    name="toy",
    claim="",
    source="",
    refuted="",
    restarts=1000,
    conditions=(Condition(left=Number(table=1, row="clp", column=3), below=15.0),),
)


def state_with(new: Cell, **row: object) -> claims.Tested:
    found = as_published()
    put(found, CLAIM.conditions[0].left, new)
    rows = tuple(
        dataclasses.replace(r, **row) if r.row == "clp" else r  # type: ignore[arg-type]
        for r in found[1].rows
    )
    found[1] = dataclasses.replace(found[1], rows=rows)
    return claims.judge(CLAIM, found).conditions[0]


def test_numbers_that_do_not_bear_on_a_claim_are_not_taken_for_it() -> None:
    assert state_with(cell(4)).state == "holds"
    for new, row, why in (
        (cell(4, restarts=999), {}, "999 restarts, fewer than 1000"),
        (cell(4, images=99), {}, "99 images, fewer than 100"),
        (cell(4), {"mark": "its training stood at chance"}, "stood at chance"),
        (cell(4), {"clean": cell(89.0)}, "clean accuracy of 89.0%"),
        (Cell(), {}, "no number in column 3"),
    ):
        tested = state_with(new, **row)
        assert tested.state == "untested" and why in tested.why
    # More restarts on fewer images count where the column's own do not reach.
    few = dataclasses.replace(cell(30, restarts=20), further=cell(4, restarts=1000, images=400))
    assert state_with(few).state == "holds"


def test_a_table_that_is_not_there_is_named_with_its_command() -> None:
    judged = [claims.judge(CLAIMS["masking"], {})]
    text = claims.to_markdown(judged, {"masking": ["make it so"]}, ["a cost"])
    assert "**not yet tested**" in text and "Table 1 has no clp yet" in text
    assert "about 6 hours on two cores" in text and "    make it so" in text and "- a cost" in text


def test_a_condition_says_one_thing() -> None:
    with pytest.raises(ValueError, match="one of above and below"):
        Condition(left=Number(table=1, row="clp", column=1))


def test_the_binary_writes_the_verdicts(tmp_path: Path) -> None:
    found = as_published()[1]
    file = tmp_path / "published" / "tables" / "table1.json"
    column = StoredColumn(title="", ours_only=False, grid_restarts=1, attack={})
    found = dataclasses.replace(found, columns=(column,) * 3)
    files.write_json(file, dataclasses.asdict(found))
    done = subprocess.run(
        [sys.executable, "-m", "experiments.claims", f"--runs_dir={tmp_path}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "masking: reproduced" in done.stdout and "finetuned: not yet tested" in done.stdout
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert "- holds: clp (Table 1, column 1): 62.4% [61.7, 63.1] (n=20000, r=10000) above" in text
    assert "--table=3 --scale=published" in text
    verdicts = {
        c["claim"]["name"]: c["verdict"]
        for c in files.read_json(tmp_path / "claims.json")["claims"]
    }
    assert verdicts["data_sets"] == "not yet tested" and verdicts["alp_holds"] == "reproduced"
