"""Claims: the rule on numbers, on both sides of each threshold."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alp_repro import PGD, files, strong_attack
from alp_repro.evaluation import wilson_interval
from alp_repro.reporting import claims, tables
from alp_repro.reporting.conditions import Claim, Condition, Evidence, Number
from alp_repro.reporting.stored_tables import StoredColumn, StoredTable
from alp_repro.reporting.tables import Cell, TableRow

CLAIMS = {claim.name: claim for claim in claims.load_claims()}
CONDITIONS = [(name, i) for name, claim in CLAIMS.items() for i in range(len(claim.conditions))]


def cell(percent: float, *, restarts: int | None = 10000, images: int = 20000) -> Cell:
    low, high = wilson_interval(round(images * percent / 100), images)
    return Cell(percent, 100 * low, 100 * high, restarts, None, images)


def made_row(r: tables.PaperRow) -> TableRow:
    """A row of the paper's; `strong`, which it has not, leaves what its last column does."""
    numbers = (*r.adversarial, r.adversarial[-1])
    return TableRow(r.row, r.label, cell(r.clean, restarts=None), tuple(map(cell, numbers)))


# What the paper says that its figures show; it gives no numbers.
SHOWN = {
    "maxima": 10.0,
    "some maxima": 60.0,
    "many maxima": 90.0,
    "maximum at image": 90.0,
    "good start": 20.0,
}
SMOOTH = {("at100", "maxima"), ("plain_alp", "some maxima")}


@dataclasses.dataclass(frozen=True)
class Made:
    """Tables and what figures show."""

    tables: dict[int, StoredTable]
    measured: dict[Number, Cell]

    def evidence(self, **outcomes: object) -> Evidence:
        return Evidence(self.tables, measured=self.measured, **outcomes)  # type: ignore[arg-type]


def as_published() -> Made:
    """Tables and figures as if our numbers were the paper's, on many images."""
    found = {}
    for number in tables.TABLES:
        rows = tuple(made_row(r) for r in tables.load_paper_table(number).rows)
        found[number] = StoredTable(
            table=number, scale="made", date="", revision="", columns=(), rows=rows
        )
    sides = [s for c in CLAIMS.values() for one in c.conditions for s in (one.left, one.right)]
    measured = {
        side: cell(0.0 if (side.row, side.column) in SMOOTH else SHOWN[str(side.column)])
        for side in sides
        if isinstance(side, Number) and side.column in SHOWN
    }
    return Made(found, measured)


def columns_of(number: int) -> tuple[StoredColumn, ...]:
    """The paper's columns, and `strong`."""
    paper = tables.load_paper_table(number)
    found = [
        StoredColumn(
            title=f"column {i}",
            ours_only=False,
            grid_restarts=c.restarts,
            attack=PGD(
                eps=c.eps / 255, eps_iter=c.eps_iter / 255, nb_iter=c.nb_iter, target=c.target
            ).to_json(),
        )
        for i, c in enumerate(paper.columns, 1)
    ]
    strong = strong_attack(paper.columns[0].eps / 255)
    ours = StoredColumn(title="", ours_only=True, grid_restarts=19, attack=strong.to_json())
    return (*found, ours)


def put(made: Made, side: Number, new: Cell) -> None:
    """Replaces a number; of "least" every adversarial one of the row."""
    if side.column in SHOWN:
        made.measured[side] = new
        return
    found, rows = made.tables, []
    for row in found[side.table].rows:
        if row.row == side.row and side.column == "clean":
            row = dataclasses.replace(row, clean=new)
        elif row.row == side.row:
            cells = [
                new if side.column in ("least", i) else old for i, old in enumerate(row.cells, 1)
            ]
            clean = cell(100.0) if side.of_clean else row.clean
            row = dataclasses.replace(row, cells=tuple(cells), clean=clean)
        rows.append(row)
    found[side.table] = dataclasses.replace(found[side.table], rows=tuple(rows))


def judged_on(claim: Claim, found: Made, seeds: int | None = None) -> claims.Judged:
    return claims.judge(claim, [found.evidence()] * (seeds or claim.seeds))


@pytest.mark.parametrize("name", CLAIMS)
def test_the_papers_own_numbers_reproduce_its_claims(name: str) -> None:
    judged = judged_on(CLAIMS[name], as_published())
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
    if condition.relation == "near":
        cases = [(0.0, "holds"), (condition.by, "undecided"), (condition.by + 2, "fails")]
        cases += [(-condition.by - 2, "fails")]
    else:
        up = 1 if condition.relation == "above" else -1
        cases = [(up * (condition.by + d), s) for d, s in ((2, "holds"), (0, "undecided"))]
        cases.append((up * (condition.by - 2), "fails"))
    for distance, state in cases:
        put(found, condition.left, cell(base + distance))
        judged = judged_on(claim, found)
        assert judged.conditions[i].state == state
        if state != "holds":
            assert judged.verdict != "reproduced"


@pytest.mark.parametrize(("name", "i"), CONDITIONS)
def test_a_model_can_fail_a_condition_and_keep_the_clean_accuracy_it_needs(
    name: str, i: int
) -> None:
    """No condition asks of a number what the least clean accuracy makes impossible."""
    claim, found = CLAIMS[name], as_published()
    condition = claim.conditions[i]
    if condition.relation == "above" and isinstance(condition.right, Number):
        most = 100.0 if condition.right.of_clean else claim.clean  # what a fit model may leave
        put(found, condition.right, cell(most))
    else:
        most = 100.0 if condition.left.column in SHOWN else claim.clean
        put(found, condition.left, cell(most if condition.relation == "below" else 0))
    if condition.left.column != "clean":  # a clean accuracy is bounded by nothing
        assert judged_on(claim, found).conditions[i].state == "fails"


def test_rows_of_the_same_images_are_compared_image_by_image() -> None:
    left, right = (Number(table=1, row=row, column=1) for row in ("at50_alp", "at50"))
    claim = dataclasses.replace(
        CLAIM, restarts=1, conditions=(Condition(left=left, above=right, by=0),)
    )
    found = as_published()
    put(found, left, cell(92, images=1000))
    put(found, right, cell(90, images=1000))
    assert judged_on(claim, found).conditions[0].state == "undecided"
    standing = np.arange(1000) < 920
    pair = {left: standing, right: np.arange(1000) < 900}
    tested = claims.judge(claim, [found.evidence(outcomes=pair)]).conditions[0]
    assert tested.state == "holds" and "paired" in tested.text
    crossed = {left: standing, right: np.arange(1000) >= 100}
    assert (
        claims.judge(claim, [found.evidence(outcomes=crossed)]).conditions[0].state == "undecided"
    )


def test_every_seed_must_meet_a_condition_and_enough_must_be_there() -> None:
    claim, found = CLAIMS["small_gain"], as_published()
    assert judged_on(claim, found, 2).verdict == "not yet tested"
    assert "2 of 3 trainings" in judged_on(claim, found, 2).conditions[0].why
    other = as_published()
    put(other, claim.conditions[0].left, cell(90))
    every = [found.evidence(), found.evidence(), other.evidence()]
    assert claims.judge(claim, every).conditions[0].state == "fails"


def test_a_shorter_training_has_a_second_verdict() -> None:
    claim = CLAIMS["masking"]
    assert judged_on(claim, as_published()).at_papers_training == "reproduced"
    judged = claims.judge(claim, [as_published().evidence()], {(1, "clp"): "epochs 15 (paper 500)"})
    assert judged.verdict == "reproduced"
    assert judged.at_papers_training.startswith("reproduced with reduced training")
    assert "epochs 15" in claims.to_markdown([judged], {}, [])


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
        (["undecided"], "undecided"),
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
        for r in found.tables[1].rows
    )
    found.tables[1] = dataclasses.replace(found.tables[1], rows=rows)
    return judged_on(CLAIM, found).conditions[0]


def test_numbers_that_do_not_bear_on_a_claim_are_not_taken_for_it() -> None:
    assert state_with(cell(4)).state == "holds"
    for new, row, why in (
        (cell(40, restarts=999), {}, "999 restarts, fewer than 1000"),
        (cell(4, images=99), {}, "99 images, fewer than 100"),
        (cell(4), {"mark": "training never got above chance"}, "never got above chance"),
        (cell(4), {"clean": cell(89.0)}, "clean accuracy of 89.0%"),
        (Cell(), {}, "no number in column 3"),
    ):
        tested = state_with(new, **row)
        assert tested.state == "untested" and why in tested.why
    # What fewer restarts break, more break too.
    assert state_with(cell(4, restarts=999)).state == "holds"
    # More restarts on fewer images count where the column's own do not reach.
    few = dataclasses.replace(cell(30, restarts=20), further=cell(4, restarts=1000, images=400))
    assert state_with(few).state == "holds"


def test_a_table_that_is_not_there_is_named_with_its_command() -> None:
    judged = [judged_on(CLAIMS["masking"], Made({}, {}))]
    text = claims.to_markdown(judged, {"masking": ["make it so"]}, ["a cost"])
    assert "**not yet tested**" in text and "Table 1 has no CLP yet" in text
    assert (
        "about 6 hours on two CPU cores" in text and "    make it so" in text and "- a cost" in text
    )


def test_a_figures_number_counts_images_and_says_what_it_is() -> None:
    claim, found = CLAIMS["figure4"], as_published()
    side = claim.conditions[0].left
    for images, maxima, state in ((8, 8, "holds"), (8, 5, "undecided"), (8, 0, "fails")):
        low, high = wilson_interval(maxima, images)
        share = 100 * maxima / images
        put(found, side, Cell(share, 100 * low, 100 * high, images=images))
        assert judged_on(claim, found).conditions[0].state == state
    put(found, side, Cell(100.0, 40.0, 100.0, images=7))
    assert "on 7 images, fewer than 8" in judged_on(claim, found).conditions[0].why
    found.measured.clear()
    assert "no figure of Plain + ALP shows this" in judged_on(claim, found).conditions[0].why


def test_the_difference_that_is_told_is_that_of_the_numbers_told() -> None:
    found = as_published()
    put(found, CLAIM.conditions[0].left, cell(1.0, images=100))
    assert "difference -14.0 [" in judged_on(CLAIM, found).conditions[0].text


def test_a_condition_says_one_thing() -> None:
    with pytest.raises(ValueError, match="one of above, below and near"):
        Condition(left=Number(table=1, row="clp", column=1))


def test_the_binary_writes_the_verdicts(tmp_path: Path) -> None:
    found = as_published().tables[1]
    file = tmp_path / "published" / "tables" / "table1.json"
    # Made with another grid, its columns stand in another order.
    rows = tuple(dataclasses.replace(row, cells=row.cells[::-1]) for row in found.rows)
    found = dataclasses.replace(found, columns=columns_of(1)[::-1], rows=rows)
    files.write_json(file, dataclasses.asdict(found))
    for seed in ("seed1", "seed2"):
        further = tmp_path / "published" / seed / "tables" / "table1.json"
        files.write_json(further, dataclasses.asdict(found))
    done = subprocess.run(
        [sys.executable, "-m", "experiments.claims", f"--runs_dir={tmp_path}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "small_gain: reproduced" in done.stdout  # over three trainings
    assert "masking: reproduced" in done.stdout and "finetuned: not yet tested" in done.stdout
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert "- holds: CLP (Table 1, attack 1): 62.4% [61.7, 63.1] (n=20000, r=10000) above" in text
    assert "no figure of CLP shows this yet" in text and "--name=figure3" in text
    assert "--table=3 --scale=published" in text
    verdicts = {
        c["claim"]["name"]: c["verdict"]
        for c in files.read_json(tmp_path / "claims.json")["claims"]
    }
    assert verdicts["data_sets"] == "not yet tested" and verdicts["alp_holds"] == "reproduced"
