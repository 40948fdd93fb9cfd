"""The table of what came after the paper: its rows, and the verdicts on its numbers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from alp_repro.errors import InputError
from alp_repro.evaluation import wilson_interval
from alp_repro.reporting import claims, table_files, tables
from alp_repro.reporting.cost import Cost
from alp_repro.reporting.table_names import FOLLOWUPS
from alp_repro.reporting.tables import Cell, TableRow
from alp_repro.training import Recipe, steps_of
from experiments import followups
from experiments.flags import settings

ROOT = Path(__file__).resolve().parents[2]
FLAGS_DIR = settings.default_flags_dir()
PAPER = tables.load_paper_table(FOLLOWUPS)
ROWS = [row.row for row in PAPER.rows]


def recipe_of(row: str, scale: str | None) -> Recipe:
    return settings.recipe(
        settings.row_flags(dataset="mnist", row=row, scale=scale, flags_dir=FLAGS_DIR)
    )


@pytest.mark.parametrize("scale", ["smoke", FOLLOWUPS])
@pytest.mark.parametrize("row", ROWS)
def test_a_scale_keeps_each_method(row: str, scale: str) -> None:
    """What tells the methods apart is the same at any scale; a single step stays one."""
    own, scaled = recipe_of(row, None), recipe_of(row, scale)
    kept = ("crafting", "adversarial_weight", "clean_weight", "penalties", "cyclic_peak")
    for name in (*kept, "noise_stddev", "label_smoothing", "model"):
        assert getattr(own, name) == getattr(scaled, name), name
    assert (own.attack is None) == (scaled.attack is None)
    if own.crafting in ("fast", "n_fgsm"):
        assert scaled.attack is not None and own.attack == dataclasses.replace(
            scaled.attack, dtype="float32"
        )


def test_the_rows_are_those_of_the_table() -> None:
    values = settings.parse(["--grid=followups"])
    assert [attack.name for attack in settings.attack_grid(values)] == [
        *("pgd", "pgd", "strong", "autoattack")
    ]
    text = Path(FLAGS_DIR, "tables", "followups.cfg").read_text(encoding="utf-8")
    assert f"--rows={','.join(ROWS)}\n" in text


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
    **dict.fromkeys(("at100", "fast_at", "n_fgsm"), (48.6, 83.6)),
    **dict.fromkeys(("at50", "at50_alp", "at50_lsq"), (69.3, 108.6)),
    "trades": (76.7, 109.0),
    **dict.fromkeys(("clp", "lsq", "label_smoothing"), (50.4, 50.4)),
}


@pytest.mark.parametrize("row", MILLISECONDS)
def test_each_row_fills_the_same_time(row: str) -> None:
    recipe = recipe_of(row, FOLLOWUPS)
    images = recipe.train_images or 60_000
    steps = steps_of(recipe, steps_per_epoch=-(-images // recipe.batch_size))
    assert steps == recipe.max_steps, "the epochs suffice"
    one, whole = MILLISECONDS[row]
    iterations = recipe.attack.gradients if recipe.attack is not None else 1
    short = steps if iterations == 1 else recipe.attack_warmup_steps
    seconds = (short * one + (steps - short) * whole) / 1000
    assert seconds == pytest.approx(180, abs=0.2)


def cell(standing: int, *, images: int = 200, restarts: int | None = 1) -> Cell:
    low, high = wilson_interval(standing, images)
    return Cell(100 * standing / images, 100 * low, 100 * high, restarts, None, images)


def written(folder: Path, standing: dict[str, int]) -> None:
    """A table in which so many of 200 images of each row withstand every attack."""
    values = settings.parse(["--grid=followups"])
    columns = [
        dataclasses.replace(PAPER.column(attack, attack.restarts), images=200)
        for attack in settings.attack_grid(values)
    ]
    cost = Cost(training_hours=180 / 3600, attack_hours=None, machines=())
    rows = [
        TableRow(row, row, cell(196, restarts=None), tuple(cell(count) for _ in columns), cost=cost)
        for row, count in standing.items()
    ]
    table_files.write_table(
        folder / "tables",
        FOLLOWUPS,
        rows,
        columns,
        heading="Follow-ups",
        details={"table": FOLLOWUPS, "scale": FOLLOWUPS, "date": "", "revision": ""},
        printed=False,
    )


def verdicts(folder: Path) -> dict[str, str]:
    found = [followups.evidence_of(folder)]
    judged = [claims.judge(claim, found) for claim in claims.load_claims("followups")]
    return {one.claim.name: followups.in_words(one) for one in judged}


def test_verdicts_follow_from_the_numbers(tmp_path: Path) -> None:
    written(tmp_path, {"at50_alp": 180, "at50": 120, "trades": 181, "at100": 120})
    found = verdicts(tmp_path)
    assert found["alp_adds"] == "holds" and found["trades_at"] == "holds"
    assert found["alp_trades"] == "undecided"
    assert found["n_fgsm_fast"] == found["wong"] == "not yet tested"
    written(tmp_path, {"at50_alp": 120, "at50": 180, "clp": 2, "lsq": 60, "label_smoothing": 0})
    found = verdicts(tmp_path)
    assert found["alp_adds"] == "does not hold" and found["no_replacement"] == "partly"


def test_every_row_bears_on_a_claim() -> None:
    named = {
        row for claim in claims.load_claims("followups") for row in claim.rows.get(FOLLOWUPS, ())
    }
    assert named == set(ROWS)


def test_the_table_tells_what_was_spent_in_place_of_the_papers_numbers(tmp_path: Path) -> None:
    written(tmp_path, {"at50": 120})
    text = (tmp_path / "tables/followups.md").read_text(encoding="utf-8")
    titles, _, line = text.splitlines()[2:5]
    assert "paper" not in titles and titles.endswith("| training, CPU seconds |")
    assert line.endswith("| 180 |")


def test_verdicts_are_written_beside_the_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.followups", f"--runs_dir={tmp_path}"]
    missing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "--table=followups --scale=followups" in missing.stderr.splitlines()[-1]
    written(tmp_path / "followups", {"at50_alp": 180, "at50": 120})
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "alp_adds: holds" in done.stdout
    assert "| 90.0% [85.1, 93.4] |" in done.stdout
    told = (tmp_path / "followups/tables/followups_verdicts.md").read_text(encoding="utf-8")
    assert "At equal time ALP beats 50% AT without it. | **holds** |" in told


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(InputError, match="1, 2, 3, 4, 5, followups"):
        tables.load_paper_table("followup")
