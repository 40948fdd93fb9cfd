"""The notebooks run from top to bottom, as a person who opens them would run them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What a small machine does in a minute or two: the notebooks read these.
SMALLER = {
    "NOTEBOOK_IMAGES": "12",
    "NOTEBOOK_RESTARTS": "3",
    "NOTEBOOK_TRAIN_IMAGES": "2000",
    "NOTEBOOK_EPOCHS": "2",
    "NOTEBOOK_MINUTES": "1",
}


def code_cells(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def shown(cell: str) -> str:
    """The cell's code; its last expression is shown in both forms, as a notebook does."""
    tree = ast.parse(cell)
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        value = ast.unparse(tree.body.pop())
        show = f"_ = {value}\nif _ is not None: (repr(_), getattr(_, '_repr_html_', str)())"
        return f"{ast.unparse(tree)}\n{show}\n"
    return f"{cell}\n"


def test_both_are_there() -> None:
    assert [len(code_cells(notebook)) > 3 for notebook in NOTEBOOKS] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, mnist_data_dir: Path) -> None:
    program = tmp_path / "cells.py"
    program.write_text("".join(map(shown, code_cells(notebook))), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env={
            **os.environ,
            **SMALLER,
            "ALP_REPRO_DATA_DIR": str(mnist_data_dir),
            "CUDA_VISIBLE_DEVICES": "",
            "MPLBACKEND": "agg",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_what_a_notebook_brings_along_is_small(notebook: Path) -> None:
    assert notebook.stat().st_size < 300_000
