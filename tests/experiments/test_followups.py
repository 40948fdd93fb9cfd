"""The tables of what came after the paper: their rows, and the verdicts on their numbers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from alp_repro.data import dataset_spec
from alp_repro.errors import InputError
from alp_repro.evaluation import wilson_interval
from alp_repro.reporting import claims, table_files, tables
from alp_repro.reporting.cost import Cost
from alp_repro.reporting.table_names import FOLLOWUPS, OURS
from alp_repro.reporting.tables import Cell, TableRow
from alp_repro.training import Recipe, steps_of
from experiments import followups
from experiments.flags import settings

ROOT = Path(__file__).resolve().parents[2]
FLAGS_DIR = settings.default_flags_dir()
TABLES = {name: tables.load_paper_table(name) for name in OURS}
ROWS = [(table.dataset, row.row) for table in TABLES.values() for row in table.rows]


def recipe_of(row: str, scale: str | None, dataset: str = "mnist") -> Recipe:
    return settings.recipe(
        settings.row_flags(dataset=dataset, row=row, scale=scale, flags_dir=FLAGS_DIR)
    )


@pytest.mark.parametrize("scale", ["smoke", FOLLOWUPS])
@pytest.mark.parametrize(("dataset", "row"), ROWS)
def test_a_scale_keeps_each_method(dataset: str, row: str, scale: str) -> None:
    """What tells the methods apart is the same at any scale; a single step stays one."""
    own, scaled = recipe_of(row, None, dataset), recipe_of(row, scale, dataset)
    kept = ("crafting", "adversarial_weight", "clean_weight", "penalties", "cyclic_peak")
    for name in (*kept, "noise_stddev", "label_smoothing", "attack_batch_statistics"):
        assert getattr(own, name) == getattr(scaled, name), name
    assert own.model == scaled.model or scale == "smoke"
    assert (own.attack is None) == (scaled.attack is None)
    if own.attack is not None and own.attack.gradients == 1:
        assert scaled.attack is not None and own.attack == dataclasses.replace(
            scaled.attack, dtype="float32"
        )


@pytest.mark.parametrize("table", OURS)
def test_the_rows_and_columns_are_those_of_the_table(table: str) -> None:
    known = TABLES[table]
    values = settings.parse([f"--grid={table}", f"--dataset={known.dataset}"])
    grid = settings.attack_grid(values)
    assert [attack.name for attack in grid] == ["pgd", "pgd", "strong", "autoattack"]
    assert {round(attack.eps * 255, 4) for attack in grid} == {dataset_spec(known.dataset).eps}
    places = [tables.paper_place(known, attack, attack.restarts) for attack in grid]
    assert places == [0, 1, None, None]
    text = Path(FLAGS_DIR, "tables", f"{table}.cfg").read_text(encoding="utf-8")
    assert f"--rows={','.join(row.row for row in known.rows)}\n" in text
    assert f"--table={table}\n--dataset={known.dataset}\n" in text


def test_single_steps_on_cifar10_are_those_of_their_authors() -> None:
    """train_fgsm.py of locuslab/fast_adversarial, train.py of pdejorge/N-FGSM; a ball of 16."""
    for row, epochs, step, crafting in (
        ("fast_at", 15, 20, "attack"),
        ("n_fgsm", 30, 16, "n_fgsm"),
    ):
        recipe = recipe_of(row, None, "cifar10")
        assert (recipe.epochs, recipe.batch_size, recipe.cyclic_peak) == (epochs, 128, 0.5)
        assert recipe.attack is not None and recipe.attack.eps == pytest.approx(16 / 255)
        assert recipe.attack.eps_iter == pytest.approx(step / 255)
        assert recipe.crafting == crafting and recipe.attack_batch_statistics


def test_trades_on_cifar10_is_that_of_its_authors() -> None:
    """yaodongyu/TRADES, train_trades_cifar10.py and trades.py."""
    recipe = recipe_of("trades", None, "cifar10")
    assert (recipe.epochs, recipe.learning_rate_drops, recipe.batch_size) == (76, (75,), 128)
    assert recipe.penalties == {"trades": 6.0} and not recipe.attack_batch_statistics


def test_wongs_row_is_trained_as_theirs() -> None:
    """locuslab/fast_adversarial, MNIST/train_mnist.py: its defaults."""
    for scale in (None, FOLLOWUPS):
        recipe = recipe_of("fast_at_wong", scale)
        assert (recipe.model, recipe.epochs, recipe.batch_size) == ("wong", 10, 100)
        assert (recipe.learning_rate, recipe.cyclic_peak) == (0.005, 0.4)
        assert recipe.attack is not None and recipe.attack.eps == pytest.approx(0.3)
        assert recipe.attack.eps_iter == pytest.approx(0.375)
        assert recipe.attack_warmup_steps == 0 and recipe.train_images is None


def test_rows_without_adversarial_images_share_their_schedule() -> None:
    schedules = [recipe_of(row, FOLLOWUPS).schedule for row in ("clp", "lsq", "label_smoothing")]
    assert {one.batch_size for one in schedules} == {192}
    assert {one.train_images for one in schedules} == {30000}


# CPU milliseconds of a step with one iteration of the training attack, and with all: see the scale.
MILLISECONDS = {
    **dict.fromkeys((("mnist", row) for row in ("at100", "fast_at", "n_fgsm")), (48.6, 83.6)),
    **dict.fromkeys((("mnist", row) for row in ("at50", "at50_alp", "at50_lsq")), (69.3, 108.6)),
    ("mnist", "trades"): (76.7, 109.0),
    **dict.fromkeys((("mnist", row) for row in ("clp", "lsq", "label_smoothing")), (50.4, 50.4)),
    ("cifar10", "at100"): (0, 1638.2),
    **dict.fromkeys((("cifar10", row) for row in ("at50", "at50_alp", "at50_lsq")), (0, 1912.6)),
    ("cifar10", "trades"): (0, 1234.1),
    **dict.fromkeys((("cifar10", row) for row in ("fast_at", "n_fgsm")), (579.5, 0)),
    ("cifar10", "clp"): (597.6, 0),
    ("cifar10", "lsq"): (585.5, 0),
    ("cifar10", "label_smoothing"): (337.9, 0),
}
SECONDS = {"mnist": 180, "cifar10": 600}


@pytest.mark.parametrize(("dataset", "row"), MILLISECONDS)
def test_each_row_fills_the_same_time(dataset: str, row: str) -> None:
    recipe = recipe_of(row, FOLLOWUPS, dataset)
    images = recipe.train_images or dataset_spec(dataset).train_size
    steps = steps_of(recipe, steps_per_epoch=-(-images // recipe.batch_size))
    assert steps == recipe.max_steps, "the epochs suffice"
    one, whole = MILLISECONDS[dataset, row]
    iterations = recipe.attack.gradients if recipe.attack is not None else 1
    short = steps if iterations == 1 else recipe.attack_warmup_steps
    seconds = (short * one + (steps - short) * whole) / 1000
    assert seconds == pytest.approx(SECONDS[dataset], rel=0.0025)


def cell(standing: int, *, images: int = 200, restarts: int | None = 1) -> Cell:
    low, high = wilson_interval(standing, images)
    return Cell(100 * standing / images, 100 * low, 100 * high, restarts, None, images)


def written(folder: Path, standing: dict[str, int], table: str = FOLLOWUPS) -> None:
    """A table in which so many of 200 images of each row withstand every attack."""
    known = TABLES[table]
    values = settings.parse([f"--grid={table}", f"--dataset={known.dataset}"])
    columns = [
        dataclasses.replace(known.column(attack, attack.restarts), images=200)
        for attack in settings.attack_grid(values)
    ]
    cost = Cost(training_hours=180 / 3600, attack_hours=None, machines=())
    rows = [
        TableRow(row, row, cell(196, restarts=None), tuple(cell(count) for _ in columns), cost=cost)
        for row, count in standing.items()
    ]
    table_files.write_table(
        folder / "tables",
        table,
        rows,
        columns,
        heading="Follow-ups",
        details={"table": table, "scale": FOLLOWUPS, "date": "", "revision": ""},
        printed=False,
    )


def verdicts(folder: Path, table: str) -> dict[str, str]:
    found = [followups.evidence_of(folder, table)]
    judged = [claims.judge(claim, found) for claim in claims.load_claims(table)]
    return {one.claim.name: followups.in_words(one) for one in judged}


@pytest.mark.parametrize("table", OURS)
def test_verdicts_follow_from_the_numbers(tmp_path: Path, table: str) -> None:
    written(tmp_path, {"at50_alp": 180, "at50": 120, "trades": 181, "at100": 120}, table)
    found = verdicts(tmp_path, table)
    assert found["alp_adds"] == "holds" and found["trades_at"] == "holds"
    assert found["alp_trades"] == "undecided"
    assert found["n_fgsm_fast"] == found.get("wong", "not yet tested") == "not yet tested"
    again = {"at50_alp": 120, "at50": 180, "clp": 2, "lsq": 60, "label_smoothing": 0}
    written(tmp_path, again, table)
    found = verdicts(tmp_path, table)
    assert found["alp_adds"] == "does not hold" and found["no_replacement"] == "partly"


@pytest.mark.parametrize("table", OURS)
def test_every_row_bears_on_a_claim(table: str) -> None:
    found = [claim.rows for claim in claims.load_claims(table)]
    assert {name for rows in found for name in rows} == {table}
    named = {row for rows in found for row in rows[table]}
    assert named == {row.row for row in TABLES[table].rows}


def test_the_table_tells_what_was_spent_in_place_of_the_papers_numbers(tmp_path: Path) -> None:
    written(tmp_path, {"at50": 120})
    text = (tmp_path / "tables/followups.md").read_text(encoding="utf-8")
    titles, _, line = text.splitlines()[2:5]
    assert "paper" not in titles and titles.endswith("| training, CPU seconds |")
    assert line.endswith("| 180 |")


@pytest.mark.parametrize("table", OURS)
def test_verdicts_are_written_beside_the_table(tmp_path: Path, table: str) -> None:
    command = [sys.executable, "-m", "experiments.followups", f"--runs_dir={tmp_path}"]
    if table != FOLLOWUPS:
        command.append(f"--table={table}")
    missing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert f"--table={table} --scale=followups" in missing.stderr.splitlines()[-1]
    written(tmp_path / "followups", {"at50_alp": 180, "at50": 120}, table)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "alp_adds: holds" in done.stdout
    assert "| 90.0% [85.1, 93.4] |" in done.stdout
    told = (tmp_path / f"followups/tables/{table}_verdicts.md").read_text(encoding="utf-8")
    assert "At equal time ALP beats 50% AT without it. | **holds** |" in told


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(InputError, match="1, 2, 3, 4, 5, followups, followups_cifar10"):
        tables.load_paper_table("followup")
