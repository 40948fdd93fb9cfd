"""A whole table of two tiny rows, one row at a time and two, undisturbed and stopped."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from alp_repro import files

ROOT = Path(__file__).resolve().parents[2]
ROW = """--dataset=mnist
--row={row}
--model_width=2
--epochs={epochs}
--train_images=1000
"""
TWO = ("--threads=1", "--jobs=2")
SCALE = """--num_images=10
--max_restarts=2
--eval_batch_size=10
"""


@pytest.fixture(scope="module")
def flags_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows, and a third that asks for more than there is."""
    folder = tmp_path_factory.mktemp("flags")
    texts = {
        "mnist/plain.cfg": ROW.format(row="plain", epochs=2),
        "mnist/lsq.cfg": ROW.format(row="lsq", epochs=3)
        + "--regularizer=lsq\n--regularizer_weight=0.5\n",
        "mnist/at50.cfg": ROW.format(row="at50", epochs=1) + "--train_images=70000\n",
        "scale/smoke/mnist/all.cfg": SCALE,
        "scale/quick/mnist/all.cfg": SCALE + "--noestimate\n",
        "tables/table1.cfg": "--dataset=mnist\n--rows=plain,lsq\n--grid=two\n",
        "attacks/two.cfg": "--attack=pgd,eps_iter=10,nb_iter=2\n--attack=pgd,restarts=9,nb_iter=3",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def command(flags_dir: Path, runs: Path, *arguments: str, scale: str = "quick") -> list[str]:
    return [
        sys.executable,
        "-m",
        "experiments.table",
        "--table=1",
        f"--scale={scale}",
        f"--flags_dir={flags_dir}",
        f"--runs_dir={runs}",
        *arguments,
    ]


def made(
    flags_dir: Path,
    runs: Path,
    *how: str,
    code: int = 0,
    rows: str = "plain,lsq",
    scale: str = "quick",
) -> str:
    """What a table printed."""
    ended = subprocess.run(
        command(flags_dir, runs, f"--rows={rows}", *how, scale=scale),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def numbers(scale: Path) -> list[dict[str, str]]:
    with (scale / "tables/table1.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_results(found: Path, expected: Path, *, ahead: bool = False) -> None:
    assert numbers(found) == numbers(expected)
    for row in ("plain", "lsq"):
        one, other = (folder / "mnist" / row for folder in (found, expected))
        weights = [files.read_json(run / "recipe.json")["weights"] for run in (one, other)]
        assert weights[0] == weights[1]
        results = sorted(path.name for path in (other / "attacks").glob("[!.]*.npz"))
        assert len(results) == 2
        for name in results:
            with np.load(one / "attacks" / name) as a, np.load(other / "attacks" / name) as b:
                np.testing.assert_array_equal(a["first_break"], b["first_break"])
                # Workers run ahead: an image that is broken may have seen some restarts more.
                known = b["first_break"] < 0 if ahead else slice(None)
                np.testing.assert_array_equal(a["next_restart"][known], b["next_restart"][known])


@pytest.fixture(scope="module")
def serial(flags_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The table made one row at a time, and what was printed."""
    runs = tmp_path_factory.mktemp("serial")
    return runs, made(flags_dir, runs, "--threads=1", "--jobs=1", scale="smoke")


def test_the_time_is_told_before_and_after_each_row(serial: tuple[Path, str]) -> None:
    lines = serial[1].splitlines()
    told = [i for i, line in enumerate(lines) if "together:" in line]
    first = [i for i, line in enumerate(lines) if line.startswith("| Plain")]
    assert len(told) == 1 and told[0] < first[0]
    assert any(line.startswith("(plain: ") and "1 of 2 rows left" in line for line in lines)
    assert any(line.startswith("(lsq: ") and "no rows left" in line for line in lines)


def test_two_rows_at_a_time_that_are_stopped_and_go_on_make_the_same_table(
    serial: tuple[Path, str], flags_dir: Path, tmp_path: Path
) -> None:
    started = subprocess.Popen(
        command(flags_dir, tmp_path, "--rows=plain,lsq", *TWO),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    backups = [tmp_path / f"quick/mnist/{row}/settings.json" for row in ("plain", "lsq")]
    deadline = time.monotonic() + 120
    while not all(path.exists() for path in backups):
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 130 and "interrupted: what was done is saved" in errors
    assert "Traceback" not in errors
    made(flags_dir, tmp_path, *TWO)
    assert_same_results(tmp_path / "quick", serial[0] / "smoke")


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra [cluster] is not installed")
def test_on_a_ray_cluster_of_this_machine_it_is_the_same_table(
    serial: tuple[Path, str], flags_dir: Path, tmp_path: Path
) -> None:
    printed = made(flags_dir, tmp_path, "--ray=local")
    assert "device: Ray, room for " in printed
    assert_same_results(tmp_path / "quick", serial[0] / "smoke", ahead=True)
    texts = [
        (scale / "tables/table1.md").read_text().partition("| Model")[2]
        for scale in (tmp_path / "quick", serial[0] / "smoke")
    ]
    assert texts[0] == texts[1]


def test_a_row_that_fails_is_told_and_the_others_are_made(flags_dir: Path, tmp_path: Path) -> None:
    printed = made(flags_dir, tmp_path, *TWO, rows="at50,plain", code=2)
    assert "at50 failed: 70000 training images asked for" in printed
    assert "error: not done, for the reasons told above: at50" in printed.splitlines()
    assert "Traceback" not in printed
    by_row = {cell["row"]: cell["ours"] for cell in numbers(tmp_path / "quick")}
    assert by_row["plain"] and not by_row["at50"]
