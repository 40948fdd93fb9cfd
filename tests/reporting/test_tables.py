from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro import files, runs
from alp_repro.attacks import PGD, Attack
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, attack_file_name, save_record
from alp_repro.reporting import stored_tables, table_files, tables
from alp_repro.reporting.results import ResultQuery
from alp_repro.reporting.tables import Cell, Column, TableRow
from alp_repro.runs import RunDir
from alp_repro.training import Recipe

PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper" / "logit_pairing_paper.txt"
WEAK = PGD(eps=76.5 / 255, eps_iter=2.55 / 255, nb_iter=40)
STRONG = PGD(eps=76.5 / 255, eps_iter=50 / 255, nb_iter=200, restarts=3)
COLUMNS = [Column(WEAK, 1), Column(STRONG, 10000)]
RECIPE = Recipe(dataset="mnist", model="lenet", penalties={"clp": 0.5}, epochs=1, batch_size=200)


DIGEST = "d" * 16


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """A model.keras and the hash of its weights."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    path = tmp_path_factory.mktemp("model") / "model.keras"
    runs.save_model(path, model)
    return path.read_bytes(), runs.weights_hash(model)


@pytest.fixture
def run(tmp_path: Path, keras_file: tuple[bytes, str]) -> RunDir:
    """A finished run."""
    found = RunDir(tmp_path / "mnist" / "clp")
    found.path.mkdir(parents=True)
    found.model.write_bytes(keras_file[0])
    files.write_json(found.recipe, {"weights": keras_file[1], "recipe": RECIPE.to_json()})
    return found


def row_of(run: RunDir, columns: list[Column], *, table: int = 1, **wanted: Any) -> TableRow:
    return tables.table_row(
        tables.load_paper_table(table),
        "clp",
        run,
        columns,
        wanted=ResultQuery(**{"num_images": 4, "digest_of": lambda _: DIGEST, **wanted}),
    )


def put_record(
    run: RunDir,
    attack: Attack,
    first_break: list[int],
    *,
    done: int,
    broken: np.ndarray | None = None,
) -> None:
    """A result of some images, the first of which is misclassified when clean."""
    n = len(first_break)
    settings = {
        "attack": {k: v for k, v in attack.to_json().items() if k != "restarts"},
        "num_images": n,
        "seed": 0,
        "losses": broken is not None,
        "model": files.read_json(run.recipe)["weights"],
        "images": DIGEST,
    }
    reached = [b + 1 if b >= 0 and broken is None else done for b in first_break]
    record = AttackRecord(
        labels=np.arange(n, dtype=np.int32),
        indices=np.arange(n),
        clean_predictions=np.array([9, *range(1, n)], np.int32),
        first_break=np.array(first_break, np.int32),
        next_restart=np.array(reached, np.int32),
        nonfinite_gradients=np.zeros(n, np.int32),
        settings=settings,
        sessions=[],
        losses=None if broken is None else np.ones(broken.shape, np.float32),
        broken=broken,
    )
    save_record(run.attacks / attack_file_name(settings), record)


def test_cells_hold_ours_and_the_papers_numbers(run: RunDir) -> None:
    put_record(run, WEAK, [0, -1, -1, -1], done=1)
    put_record(run, STRONG, [0, 2, -1, 0], done=3)
    row = row_of(run, COLUMNS)
    assert (row.clean.ours, row.clean.by_paper) == (75.0, 98.8)
    assert [cell.ours for cell in row.cells] == [75.0, 25.0]
    # The scale's three restarts stand beside the paper's ten thousand.
    assert [cell.by_paper for cell in row.cells] == [62.4, 4.1]
    assert row.complete and row.cells[1].restarts == 3


def test_what_is_not_done_is_a_dash(run: RunDir) -> None:
    put_record(run, STRONG, [0, -1, -1, -1], done=2)
    row = row_of(run, COLUMNS)
    assert not row.complete and [cell.ours for cell in row.cells] == [None, None]
    assert table_files.markdown_line(row, COLUMNS).count("–") == 3
    other_images = row_of(run, COLUMNS, num_images=5)
    assert other_images.cells[1].ours is None


def test_an_attack_of_ours_gets_no_number_of_the_papers(run: RunDir) -> None:
    margin = PGD(eps=76.5 / 255, eps_iter=50 / 255, nb_iter=200, loss="margin")
    columns = [Column(margin, 10000), Column(STRONG, 10000, ours_only=True), Column(WEAK, 7)]
    row = row_of(run, columns)
    assert [cell.by_paper for cell in row.cells] == [None, None, None]


def test_numbers_of_a_model_that_was_replaced_are_not_shown(run: RunDir) -> None:
    put_record(run, WEAK, [0, -1, -1, -1], done=1)
    assert row_of(run, COLUMNS).cells[0].ours == 75.0
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    runs.save_model(run.model, other)
    row = row_of(run, COLUMNS)
    assert [row.clean.ours, *(cell.ours for cell in row.cells)] == [None, None, None]
    assert "not the model of recipe.json" in row.problems[0]
    # Trained anew, with the old results still there:
    files.write_json(run.recipe, {"weights": runs.weights_hash(other), "recipe": RECIPE.to_json()})
    row = row_of(run, COLUMNS)
    assert row.cells[0].ours is None and row.clean.ours is None
    assert row.problems == ("its result is of another model (the weights differ)",)
    text = table_files.to_markdown([row], COLUMNS, heading="Table 1")
    assert "Not shown:\n\n- CLP (λ = 0.5) + N(0, 0.5): its result is of another model" in text


def test_numbers_of_other_images_of_the_same_count_are_not_shown(run: RunDir) -> None:
    put_record(run, WEAK, [0, -1, -1, -1], done=1)
    row = row_of(run, COLUMNS, digest_of=lambda _: "e" * 16)
    assert row.cells[0].ours is None and row.clean.ours is None
    (problem,) = row.problems
    assert "of other images" in problem
    # Where the data set is not at hand, nothing can be compared.
    assert row_of(run, COLUMNS, digest_of=lambda _: None).cells[0].ours == 75.0


def test_numbers_of_another_recipe_are_not_shown(run: RunDir) -> None:
    put_record(run, WEAK, [0, -1, -1, -1], done=1)
    assert row_of(run, COLUMNS, recipe=RECIPE).cells[0].ours == 75.0
    row = row_of(run, COLUMNS, recipe=dataclasses.replace(RECIPE, seed=1))
    assert row.cells[0].ours is None
    (problem,) = row.problems
    assert "other settings (seed: 0 in the folder, 1 requested)" in problem


def test_a_model_at_chance_is_marked(run: RunDir) -> None:
    put_record(run, WEAK, [0, -1, -1, -1], done=1)
    files.write_json(run.recipe, {**files.read_json(run.recipe), "at_chance": True})
    line = table_files.markdown_line(row_of(run, COLUMNS), COLUMNS)
    assert line.startswith("| CLP (λ = 0.5) + N(0, 0.5) (training never got above chance) | 75.0%")


def test_a_cell_says_its_images_and_restarts_where_they_are_not_the_columns(run: RunDir) -> None:
    put_record(run, STRONG, [0, 2, -1, 0], done=3)
    put_record(run, STRONG, [0, 2, 50], done=60)
    for_all = [dataclasses.replace(c, images=1000) for c in COLUMNS]
    fewer = dataclasses.replace(COLUMNS[1], attack=dataclasses.replace(STRONG, restarts=2))
    row = row_of(run, [COLUMNS[0], fewer])
    text = table_files.markdown_line(row, for_all)
    assert "50.0% [15.0, 85.0] (n=4, r=2)" in text
    # The same attack with more restarts, on fewer images:
    assert row.cells[1].further is not None and "; 0.0% [0.0, 56.1] (n=3, r=10000)" in text


def test_the_mean_over_restarts_stands_beside_the_worst_case(run: RunDir) -> None:
    put_record(run, STRONG, [0, 2, -1, 0], done=3)
    assert row_of(run, COLUMNS).cells[1].mean is None
    broken = np.array([[1, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]], bool)
    put_record(run, STRONG, [0, 2, -1, 0], done=3, broken=broken)
    cell = row_of(run, COLUMNS).cells[1]
    assert (cell.ours, cell.mean) == (25.0, pytest.approx(100 * 7 / 12))
    text = table_files.markdown_line(row_of(run, COLUMNS), COLUMNS)
    assert "; mean over restarts 58.3%" in text


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaterAttack(PGD):
    """An attack with a setting that nobody has thought of yet."""

    sharpness: float = 0.0


_SIZES = {"eps": 76.5 / 255, "eps_iter": 50 / 255, "nb_iter": 200, "restarts": 3}


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (PGD(**_SIZES, momentum=0.75), "momentum=0.75"),
        (PGD(**_SIZES, gradient_noise=0.1), "gradient_noise=25.5"),
        (PGD(**_SIZES, random_start=False), "random_start=false"),
        (PGD(**_SIZES, success="any"), "success=any"),
        (PGD(**_SIZES, target="random"), "target=random"),
        (LaterAttack(**_SIZES, sharpness=2.0), "sharpness=2.0"),
        (PGD(**{**_SIZES, "eps": 1.0}), "ε=255"),
    ],
)
def test_an_attack_that_is_not_the_papers_says_so_and_stands_beside_no_number(
    run: RunDir, attack: Attack, told: str
) -> None:
    paper = tables.load_paper_table(1)
    put_record(run, STRONG, [0, 2, -1, 0], done=3)
    put_record(run, attack, [0, 0, 0, 0], done=3)
    columns = [paper.column(a, 10000) for a in (STRONG, attack)]
    row = row_of(run, columns)
    assert [cell.ours for cell in row.cells] == [25.0, 0.0]  # each has a result of its own
    assert [cell.by_paper for cell in row.cells] == [4.1, None]
    assert told in columns[1].title and told not in columns[0].title


def test_a_column_of_another_execution_is_the_papers() -> None:
    paper = tables.load_paper_table(3)
    attack = PGD(eps=16 / 255, eps_iter=2 / 255, nb_iter=10, target="random", dtype="bfloat16")
    column = paper.column(attack, 1)
    assert column.title == "ε_i=2, n=10, r=1"  # the heading tells the dtype, the caption the target
    assert tables.load_paper_table(5).column(attack, 1).title.endswith("ours: target=random")


def test_a_column_whose_rows_have_other_restarts_says_them_all() -> None:
    many = dataclasses.replace(STRONG, restarts=1000)
    columns = [Column(attack, 10000) for attack in (many, STRONG, many)]
    assert Column.of_rows(columns).title.endswith("r=10k (here r=3 or 1000)")
    assert Column.of_rows(columns[:1]).title.endswith("r=10k (here r=1000)")


def test_markdown_csv_and_json_agree(run: RunDir, tmp_path: Path) -> None:
    put_record(run, WEAK, [0, -1, -1, -1], done=1)
    row = row_of(run, COLUMNS)
    table_files.write_table(
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


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(InputError, match=r"table 6: .*one of 1, 2"):
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


def stored(row: TableRow, columns: list[Column], folder: Path) -> stored_tables.StoredTable:
    """A longer run's table with this row."""
    table_files.write_table(
        folder,
        "table1",
        [row],
        columns,
        heading="",
        details={"table": 1, "scale": "published", "date": "", "revision": ""},
    )
    return stored_tables.read_table(folder / "table1.json")


def test_a_longer_runs_numbers_stand_beside_those_of_the_same_attacks(
    run: RunDir, tmp_path: Path
) -> None:
    longer = TableRow(
        "clp",
        "CLP",
        Cell(99.0, 98.0, 99.5),
        (Cell(60.0, 57.0, 63.0, 1), Cell(5.0, 4.0, 6.0, 1000), Cell(0.0, 0.0, 1.0, 3)),
    )
    strong = dataclasses.replace(STRONG, restarts=1000)
    theirs = [Column(WEAK, 1), Column(strong, 10000), Column(STRONG, 3)]
    table = stored(longer, theirs, tmp_path / "longer")
    put_record(run, WEAK, [0, -1, 0, -1], done=1)
    crafted_otherwise = Column(dataclasses.replace(WEAK, dtype="bfloat16"), 1)
    other = Column(dataclasses.replace(WEAK, nb_iter=41), 1)
    columns = [COLUMNS[0], COLUMNS[1], crafted_otherwise, other]
    beside = stored_tables.beside_long_run(row_of(run, columns), columns, table)
    numbers = [cell.long_run.ours if cell.long_run else None for cell in beside.cells]
    assert numbers == [60.0, 5.0, 60.0, None]
    assert beside.clean.long_run is not None and beside.clean.long_run.ours == 99.0
    text = table_files.to_markdown([beside], columns, heading="x")
    line = next(line for line in text.splitlines() if line.startswith("| CLP"))
    assert line.split(" | ")[5:7] == ["60.0%", "62.4%"]
    assert "| 5.0% (r=1000) | 4.1% |" in line
    assert text.splitlines()[2].count("long run") == len(columns) + 1
    assert table_files.LONG_RUN in text
    again = stored(beside, columns, tmp_path / "again").row("clp")
    assert again is not None and again.cells[0].long_run == beside.cells[0].long_run
    assert again.beside_long_run


def test_without_a_longer_run_nothing_stands_beside(run: RunDir, tmp_path: Path) -> None:
    row = row_of(run, COLUMNS)
    assert stored_tables.beside_long_run(row, COLUMNS, None) is row
    missing = stored(dataclasses.replace(row, row="lsq"), COLUMNS, tmp_path / "longer")
    assert stored_tables.beside_long_run(row, COLUMNS, missing) is row
    empty = stored(row, COLUMNS, tmp_path / "empty")
    beside = stored_tables.beside_long_run(row, COLUMNS, empty)
    assert not beside.beside_long_run
    assert "long run" not in table_files.to_markdown([beside], COLUMNS, heading="x")


def test_a_table_that_says_the_same_is_not_written_again(run: RunDir, tmp_path: Path) -> None:
    put_record(run, WEAK, [0, -1, -1, -1], done=1)
    row = row_of(run, COLUMNS)

    def written(row: TableRow, heading: str, date: str) -> str:
        details = {"scale": "published", "date": date}
        table_files.write_table(tmp_path, "t", [row], COLUMNS, heading=heading, details=details)
        return str(files.read_json(tmp_path / "t.json")["date"])

    assert written(row, "Table 1", "Monday") == "Monday"
    assert written(row, "Table 1", "Tuesday") == "Monday"
    assert written(row, "Table 1, of data of one's own", "Wednesday") == "Wednesday"
    assert written(dataclasses.replace(row, mark="x"), "Table 1", "Thursday") == "Thursday"
    (tmp_path / "t.md").unlink()
    assert written(dataclasses.replace(row, mark="x"), "Table 1", "Friday") == "Friday"
