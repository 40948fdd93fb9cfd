"""A whole table of two tiny rows, one row at a time and two, undisturbed and stopped."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from alp_repro.evaluation.heat_maps import load_heat_map
from tests import command_runner
from tests.same_results import assert_same_results

ROOT = Path(__file__).resolve().parents[2]
ROW = """--dataset=mnist
--row={row}
--model_width=2
--epochs={epochs}
--train_images=1000
"""
TWO = ("--threads=1", "--jobs=2")
MAP = """--eps_iters=2,8,40
--nb_iters=1,3
--num_images=10
"""
SCALE = """--num_images=10
--max_restarts=2
--eval_batch_size=10
"""

pytestmark = pytest.mark.slow
NEEDS_RAY = pytest.mark.skipif(
    find_spec("ray") is None, reason="the extra [cluster] is not installed"
)


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
        "scale/smoke/figures/heat_maps.cfg": MAP,
        "scale/quick/mnist/all.cfg": SCALE + "--noestimate\n",
        "tables/table1.cfg": "--dataset=mnist\n--rows=plain,lsq\n--grid=two\n",
        "attacks/two.cfg": "--attack=pgd,eps_iter=10,nb_iter=2\n--attack=pgd,restarts=9,nb_iter=3",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def command(
    flags_dir: Path, runs: Path, *arguments: str, scale: str = "quick", binary: str = "table"
) -> list[str]:
    return [
        sys.executable,
        "-m",
        f"experiments.{binary}",
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
    binary: str = "table",
) -> str:
    """What a table, or another binary, printed."""
    _, _, *words = command(flags_dir, runs, f"--rows={rows}", *how, scale=scale, binary=binary)
    ended, output = command_runner.run_all([["it", *words]], cwd=ROOT)["it"]
    assert ended == code, output
    return output


def numbers(scale: Path) -> list[dict[str, str]]:
    with (scale / "tables/table1.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def serial(flags_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The table made one row at a time, and what was printed."""
    runs = tmp_path_factory.mktemp("serial")
    return runs, made(flags_dir, runs, "--threads=1", "--jobs=1", scale="smoke")


def test_the_time_is_told_before_and_after_each_row(serial: tuple[Path, str]) -> None:
    lines = serial[1].splitlines()
    told = [i for i, line in enumerate(lines) if "total:" in line]
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
    assert started.returncode == 130 and "interrupted: progress is saved" in errors
    assert "Traceback" not in errors
    made(flags_dir, tmp_path, *TWO)
    assert_same_results(tmp_path / "quick", serial[0] / "smoke")


@NEEDS_RAY
def test_on_a_ray_cluster_of_this_machine_it_is_the_same_table(
    serial: tuple[Path, str], flags_dir: Path, tmp_path: Path
) -> None:
    printed = made(flags_dir, tmp_path, "--ray=local")
    assert "device: Ray, " in printed
    assert_same_results(tmp_path / "quick", serial[0] / "smoke")


@NEEDS_RAY
def test_heat_maps_on_a_ray_cluster_of_this_machine_are_the_same(
    serial: tuple[Path, str], flags_dir: Path, tmp_path: Path
) -> None:
    maps = {}
    for how in ("--threads=1", "--ray=local"):
        runs = tmp_path / how
        shutil.copytree(serial[0], runs)
        printed = made(flags_dir, runs, how, rows="lsq", scale="smoke", binary="heat_maps")
        assert "lsq: 3 of 3 step sizes" in printed
        (path,) = (runs / "smoke/mnist/lsq/heat_maps").glob("[!.]*.npz")
        maps[how] = load_heat_map(path)
        assert maps[how].sessions[0]["device"].startswith("Ray" if "ray" in how else "CPU")
    here, there = maps.values()
    assert here.complete and there.complete and here.settings == there.settings
    np.testing.assert_array_equal(there.broken, here.broken)
    assert here.broken.any() and not here.broken.all()


def test_a_row_that_fails_is_told_and_the_others_are_made(flags_dir: Path, tmp_path: Path) -> None:
    printed = made(flags_dir, tmp_path, *TWO, rows="at50,plain", code=2)
    assert "at50 failed: train_images 70000" in printed
    assert "error: failed, for the reasons above: at50" in printed.splitlines()
    assert "Traceback" not in printed
    by_row = {cell["row"]: cell["ours"] for cell in numbers(tmp_path / "quick")}
    assert by_row["plain"] and not by_row["at50"]


def test_what_only_shows_writes_nothing(
    serial: tuple[Path, str], flags_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(serial[0], tmp_path, dirs_exist_ok=True)
    tables = tmp_path / "smoke/tables"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tables.iterdir()}
    printed = made(flags_dir, tmp_path, "--show", rows="plain", scale="smoke")
    assert "| Plain |" in printed and "LSQ" not in printed and "written" not in printed
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tables.iterdir()
    } == before


def test_rows_that_are_not_asked_for_are_kept(
    serial: tuple[Path, str], flags_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(serial[0], tmp_path, dirs_exist_ok=True)
    tables = tmp_path / "smoke/tables"
    before = {path: path.read_bytes() for path in tables.iterdir()}
    printed = made(flags_dir, tmp_path, rows="plain", scale="smoke")
    assert "(kept: lsq)" in printed
    assert {path: path.read_bytes() for path in tables.iterdir()} == before
