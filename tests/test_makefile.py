"""What `make` would run: the published runs are shown, and judged, where they lie."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

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
        ("verify ROWS=clp", "experiments.verify --rows=clp"),
    ],
)
def test_what_make_runs(asked: str, wanted: str) -> None:
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
    command = told.stdout.splitlines()[-1]
    assert wanted in command
    assert ("results" in command) == ("results" in wanted)
