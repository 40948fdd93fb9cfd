"""A process that another one started ends with it, whatever it is doing."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# One native call that goes on, in which Python hears no signal: a lock that waits for itself.
NATIVE = "m = ctypes.create_string_buffer(64); f = ctypes.CDLL(None).pthread_mutex_lock; f(m); f(m)"
RESTARTED = "[time.sleep(0.1) for _ in range(3000)]"

CHILD = """
import ctypes, os, signal, sys, time
from alp_repro.system import interrupts, orphans
signal.signal(signal.SIGTERM, interrupts.raise_interrupt)  # as every binary does
orphans.follow_parent(seconds=0.5)
with open(sys.argv[1] + '.new', 'w') as file: file.write(str(os.getpid()))
os.rename(sys.argv[1] + '.new', sys.argv[1])
{work}
"""
PARENT = """
import sys
from alp_repro.system import orphans
sys.exit(orphans.run([sys.executable, '-c', sys.argv[1], *sys.argv[2:]]))
"""


@pytest.mark.parametrize("work", [RESTARTED, NATIVE], ids=["Python", "native"])
def test_a_child_of_a_killed_process_ends(work: str, tmp_path: Path) -> None:
    file = tmp_path / "child"
    parent = start(CHILD.format(work=work), file)
    child = int(waited_for(file))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while alive(child):
        assert time.monotonic() < deadline, "the child goes on"
        time.sleep(0.05)


def test_a_figure_ends_with_the_command_that_draws_them_all(tmp_path: Path) -> None:
    stored = ROOT / "tests" / "stored" / "runs" / "mnist" / "clp"
    model_alone = shutil.ignore_patterns("attacks", "surfaces")
    shutil.copytree(stored, tmp_path / "smoke" / "mnist" / "clp", ignore=model_alone)
    command = [sys.executable, "-m", "experiments.figures", "--only=heat_maps_mnist"]
    command += ["--scale=smoke", f"--runs_dir={tmp_path}"]
    figures = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    children = Path(f"/proc/{figures.pid}/task/{figures.pid}/children")
    waited_for(children, as_soon_as=draws)
    figures.kill()
    figures.communicate(timeout=300)  # until nobody has its output
    assert not list(tmp_path.rglob("*.npz*")) and not (tmp_path / "smoke" / "figures").exists()


def test_the_exit_code_is_the_childs_own(tmp_path: Path) -> None:
    assert start(CHILD.format(work="sys.exit(3)"), tmp_path / "child").wait() == 3


def test_a_process_that_nobody_started_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "child"
    subprocess.run([sys.executable, "-c", CHILD.format(work=""), file], cwd=ROOT, check=True)
    assert file.exists()


def draws(processes: str) -> bool:
    """Whether a heat map's binary is among them; one that has ended in the meantime is not."""
    files = [Path(f"/proc/{process}/cmdline") for process in processes.split()]
    with contextlib.suppress(OSError):
        return any("experiments.heat_maps" in file.read_text() for file in files)
    return False


def start(code: str, file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PARENT, code, str(file)], cwd=ROOT)


def waited_for(file: Path, as_soon_as: Callable[[str], object] = lambda _: True) -> str:
    deadline = time.monotonic() + 120
    while not (file.exists() and as_soon_as(file.read_text())):
        assert time.monotonic() < deadline, "the child has not begun"
        time.sleep(0.05)
    return file.read_text()


def alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
