"""The published results are checked from the command line: what differs or is missing is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alp_repro import files, runs
from alp_repro.attacks import PGD, strong_attack
from alp_repro.data import load_split
from alp_repro.errors import InputError
from alp_repro.evaluation import evaluate, wilson_interval
from alp_repro.evaluation.record_file import load_record, save_record
from alp_repro.reporting import table_files, tables
from alp_repro.reporting.results import ResultQuery
from alp_repro.reporting.stored_tables import check_published
from alp_repro.reporting.tables import Column
from tests import command_runner

# Each needs results that are made here; test_light_commands has quick tests of verify's refusals.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "tests" / "stored" / "runs" / "mnist" / "clp"
COUNT = 12
COLUMNS = [
    Column(PGD(eps=0.1, eps_iter=0.02, nb_iter=2, restarts=3), 10),
    Column(strong_attack(0.02), 18, ours_only=True),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LeNet with two results and the table of them."""
    folder = tmp_path_factory.mktemp("results")
    run = runs.RunDir(folder / "published" / "mnist" / "clp")
    shutil.copytree(STORED, run.path, ignore=shutil.ignore_patterns("attacks", "surfaces"))
    test = load_split("mnist", "test")
    model = runs.load_model(run.model)
    right = np.argmax(model(test.unit_scale[:500]), axis=1) == test.labels[:500]
    indices = np.flatnonzero(right)[:COUNT]
    for column in COLUMNS:
        evaluate(
            model,
            test.unit_scale[indices],
            test.labels[indices],
            attack=column.attack,
            folder=run.attacks,
            indices=indices,
        )
    write_table(folder)
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    folder = tmp_path / "results"
    shutil.copytree(made, folder)
    return folder


def write_table(folder: Path) -> None:
    run = runs.RunDir(folder / "published" / "mnist" / "clp")
    row = tables.table_row(
        tables.load_paper_table(1), "clp", run, COLUMNS, wanted=ResultQuery(num_images=COUNT)
    )
    table_files.write_table(
        folder / "published" / "tables",
        "table1",
        [row],
        COLUMNS,
        heading="",
        details={"table": 1, "scale": "published", **runs.provenance()},
    )


def clp(folder: Path) -> runs.RunDir:
    return runs.RunDir(folder / "published" / "mnist" / "clp")


@pytest.fixture(scope="module")
def verified(made: Path, tmp_path_factory: pytest.TempPathFactory) -> command_runner.Ends:
    """Exit code and output for results as they were made, and for others."""
    changed = tmp_path_factory.mktemp("changed") / "results"
    shutil.copytree(made, changed)
    for path in clp(changed).attacks.glob("*.npz"):
        record = load_record(path)
        record.first_break[:] = np.where(record.first_break == 0, -1, 0)
        record.next_restart[:] = 18
        save_record(path, record)
    (changed / "published" / "tables" / "table1.json").unlink()
    write_table(changed)
    commands = [
        ["right", "experiments.verify", f"--results_dir={made}", "--strong_images=5"],
        ["changed", "experiments.verify", f"--results_dir={changed}"],
    ]
    return command_runner.run_all(commands, cwd=ROOT)


def test_what_is_as_it_was_made_passes(verified: command_runner.Ends) -> None:
    code, output = verified["right"]
    assert code == 0, output
    lines = [line for line in output.splitlines() if "image by image" in line]
    assert len(lines) == 2 and "2 results compared" in output
    assert sum(f" {COUNT} images" in line for line in lines) == 1
    assert sum(" 5 images" in line for line in lines) == 1


def test_a_result_that_differs_is_told_with_its_images_and_ends_in_1(
    verified: command_runner.Ends,
) -> None:
    code, output = verified["changed"]
    assert code == 1 and output.count("DIFFERS") == 2
    assert "2 of them differ on more than 2% of their images" in output


def remove_a_result(folder: Path) -> None:
    next(clp(folder).attacks.glob("strong*.npz")).unlink()


def change(cell: dict[str, Any]) -> None:
    """Three images more or fewer, with the interval of so many: nothing in itself is wrong."""
    count = round(cell["ours"] * COUNT / 100)
    count += 3 if count < 3 else -3
    low, high = wilson_interval(count, COUNT)
    cell |= {"ours": 100 * count / COUNT, "low": 100 * low, "high": 100 * high}


def change_the_table(folder: Path) -> None:
    file = folder / "published" / "tables" / "table1.json"
    table = files.read_json(file)
    change(table["rows"][0]["cells"][0])
    files.write_json(file, table)


def change_the_clean_accuracy(folder: Path) -> None:
    file = folder / "published" / "tables" / "table1.json"
    table = files.read_json(file)
    change(table["rows"][0]["clean"])
    files.write_json(file, table)


def remove_the_table(folder: Path) -> None:
    (folder / "published" / "tables" / "table1.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (remove_a_result, "expected results with this number, but there are none"),
        (change_the_table, "expected results with this number, but they give"),
        (change_the_clean_accuracy, r"clean: expected results .* they give 100\.0%"),
        (remove_the_table, "table1.json"),
    ],
)
def test_what_is_missing_or_says_something_else_is_told(
    results: Path, spoil: Callable[[Path], None], told: str
) -> None:
    check_published(results, "mnist/clp")
    spoil(results)
    with pytest.raises(InputError, match=told):
        check_published(results, "mnist/clp")


def test_a_row_that_is_not_published_is_named(results: Path) -> None:
    with pytest.raises(InputError, match="has no numbers of lsq"):
        check_published(results, "mnist/lsq")
