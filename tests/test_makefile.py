"""What `make` would run: published runs are shown and judged where they lie; tests."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LONG

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("mnist-table1 SCALE=published", "--scale=published --runs_dir=results --strong --show"),
        ("mnist-table1", "--scale=quick"),
        ("figure3 SCALE=published", "--scale=published --runs_dir=results --only=figure3"),
        ("report SCALE=published", "--runs_dir=results --out=results/report.html"),
        ("claims", "--scale=published --runs_dir=results"),
        ("claims SCALE=quick", "--scale=quick"),
        ("mnist-followups", "--scale=followups"),
        ("mnist-followups SCALE=published", "--scale=followups --runs_dir=results"),
        ("mnist-followups SCALE=smoke", "--scale=smoke"),
        ("cifar10-followups", "--table=followups_cifar10 --scale=followups"),
        ("verify ROWS=clp", "experiments.verify --rows=clp"),
        ("test", "-m 'not slow'"),
        ("coverage", "-m 'not slow' --cov"),
        ("test-numeric", "tests/attacks"),
    ],
)
def test_what_make_runs(asked: str, wanted: str) -> None:
    command = dry_run(asked)[-1]
    assert wanted in command
    assert ("results" in command) == ("results" in wanted)


def test_the_long_run_is_shown_before_a_training() -> None:
    first, own = dry_run("mnist-table1")
    assert "published long run" in first
    assert first.index("experiments.table") < first.index("experiments.claims")
    assert "--show" in first and "--show" not in own


def test_the_long_run_itself_is_shown_once() -> None:
    assert len(dry_run("mnist-table1 SCALE=published")) == 1


def dry_run(asked: str) -> list[str]:
    """The commands of `make asked`."""
    # Of a `make test` that runs this, nothing is passed on.
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "SCALE", "ROWS")
    told = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--old-file=.venv/.ready", *asked.split()],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in outer},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.splitlines()


def test_make_test_all_leaves_nothing_out() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--old-file=.venv/.ready", "test-all"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert " -m pytest " in told.stdout and not re.search(r"slow|-k|tests/", told.stdout)
    assert "make test-all\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_the_files_that_are_named_are_there() -> None:
    """Of the numeric set, and of the order of the tests."""
    (command,) = dry_run("test-numeric")
    assert "slow" not in command
    named = [word for word in command.split() if word.startswith("tests/")]
    assert len(named) > 4
    assert [name for name in named if not (ROOT / name).exists()] == []
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(LONG) <= files
