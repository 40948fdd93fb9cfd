"""Figures' binaries: their scales are flagfiles, and a table knows its data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from alp_repro import APGD, PGD, strong_attack
from experiments.flags import settings
from experiments.running import figure_run
from tests import command_runner

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str) -> tuple[int, str]:
    return command_runner.run_all([["it", *words]], cwd=ROOT)["it"]


@pytest.mark.parametrize("kind", ["heat_maps", "histograms"])
def test_every_scale_has_its_figures(kind: str) -> None:
    files = sorted(ROOT.glob(f"flags/scale/*/figures/{kind}.cfg"))
    assert {file.parts[-3] for file in files} == set(settings.SCALES) - {"seeds", "followups"}


def test_a_row_of_another_data_set_is_not_labelled_as_the_tables(tmp_path: Path) -> None:
    code, output = run(
        "experiments.table",
        "--flagfile=flags/tables/table1.cfg",
        "--table=2",
        "--show",
        f"--runs_dir={tmp_path}",
    )
    assert code == 2
    assert "--table=2 --dataset=mnist: Table 2 is of cifar10" in output
    assert not list(tmp_path.iterdir())


def test_a_figure_without_a_model_names_what_makes_it(tmp_path: Path) -> None:
    code, output = run("experiments.heat_maps", "--table=1", "--rows=clp", f"--runs_dir={tmp_path}")
    assert code == 2
    assert "the model of MNIST CLP is missing: make it with python -m" in output


def test_a_caption_tells_what_an_attack_has() -> None:
    eps = 16 / 255
    paper = PGD(eps=eps, eps_iter=4 / 255, nb_iter=10, restarts=3, dtype="bfloat16")
    told = figure_run.in_words(paper)
    assert told.startswith("PGD with ε = 16, steps of 4, n = 10, r = 3, crafted in bfloat16")
    assert "ε = 16, n = 5, r = 1" in figure_run.in_words(APGD(eps=eps, nb_iter=5))
    assert figure_run.in_words(strong_attack(eps)).startswith("STRONG with ε = 16, r = ")
