"""The binaries as a user calls them: bad input ends in one line and a non-zero exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE1 = "--flagfile=flags/tables/table1.cfg"

# name: (arguments, exit code, what the line says)
BAD = {
    "unknown flag": (["train", "--regulariser=clp"], 2, "regulariser"),
    "unknown scale": (["table", TABLE1, "--scale=fast"], 2, "fast"),
    "unknown row": (["table", TABLE1, "--scale=smoke", "--only=cpl"], 2, "unknown row 'cpl'"),
    "step above eps": (
        ["evaluate", "--row=x", "--attack=pgd,eps=10,eps_iter=20"],
        2,
        "a step in (0, eps]",
    ),
    "no such model": (["evaluate", "--row=x", "--grid=table1"], 2, "train the model first"),
    "foreign weights": (["evaluate", "--row=foreign", "--grid=table1"], 2, "no .keras file"),
    "no GPU": (
        ["train", "--device=gpu", "--dataset=mnist", "--row=y", "--epochs=1"],
        2,
        "no GPU here",
    ),
    "TF_CONFIG": (
        ["train", "--strategy=multi_worker", "--dataset=mnist", "--row=z", "--epochs=1"],
        2,
        "TF_CONFIG",
    ),
    "no runs": (["report", "--scale=smoke"], 2, "is not there"),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """How each command ended; two at a time, since TensorFlow takes seconds to import."""
    folder = tmp_path_factory.mktemp("runs")
    foreign = folder / "mnist" / "foreign"
    foreign.mkdir(parents=True)
    (foreign / "model.keras").write_text("not a model")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CONFIG": "{not json"}

    def end(name: str) -> subprocess.CompletedProcess[str]:
        binary, *arguments = BAD[name][0]
        return subprocess.run(
            [sys.executable, "-m", f"experiments.{binary}", *arguments, f"--runs_dir={folder}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
            check=False,
        )

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(BAD, pool.map(end, BAD), strict=True))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line(
    name: str, ends: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    _, code, words = BAD[name]
    found = ends[name]
    errors = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert found.returncode == code, found.stderr
    assert "Traceback" not in found.stderr
    assert len(errors) == 1 and words in errors[0]
    assert found.stderr.rstrip().endswith(errors[0])
