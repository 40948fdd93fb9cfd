"""The binaries as a user calls them: bad input ends in one line and a non-zero exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import command_runner

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
        "(0, eps]",
    ),
    "no such model": (["evaluate", "--row=x", "--grid=table1"], 2, "train the model first"),
    "foreign weights": (["evaluate", "--row=foreign", "--grid=table1"], 2, "model.keras"),
    "no GPU": (
        ["train", "--device=gpu", "--dataset=mnist", "--row=y", "--epochs=1"],
        2,
        "no GPU",
    ),
    "TF_CONFIG": (
        ["train", "--strategy=multi_worker", "--dataset=mnist", "--row=z", "--epochs=1"],
        2,
        "TF_CONFIG",
    ),
    "no runs": (["report", "--scale=smoke"], 2, "smoke does not exist"),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit code and output of each command."""
    folder = tmp_path_factory.mktemp("runs")
    foreign = folder / "mnist" / "foreign"
    foreign.mkdir(parents=True)
    (foreign / "model.keras").write_text("not a model")
    commands = [
        [name, f"experiments.{binary}", *arguments, f"--runs_dir={folder}"]
        for name, ((binary, *arguments), *_) in BAD.items()
    ]
    return command_runner.run_all(commands, cwd=ROOT, TF_CONFIG="{not json")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line(name: str, ends: dict[str, tuple[int, str]]) -> None:
    _, expected, words = BAD[name]
    code, output = ends[name]
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert code == expected, output
    assert "Traceback" not in output
    assert len(errors) == 1 and words in errors[0]
    assert output.rstrip().endswith(errors[0])
