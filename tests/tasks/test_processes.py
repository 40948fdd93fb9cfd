"""Tasks one after the other and in processes: what ends how, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from alp_repro.tasks import Ended, Status, Task, run_here, run_in_processes
from tests.tasks.small_tasks import Write

ROOT = Path(__file__).resolve().parents[2]


class Heard:
    """What tasks told and said."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.said: list[tuple[str, str]] = []

    def report_status(self, task: Task, status: Status) -> None:
        self.told.append((task.name, status.text))

    def report_line(self, task: Task, text: str) -> None:
        self.said.append((task.name, text))


Do = Callable[..., Generator[Ended, None, None]]


@pytest.fixture(params=["run_here", "in processes"])
def do(request: pytest.FixtureRequest) -> Do:
    """Both executors, with up to two at a time."""
    heard = Heard()
    if request.param == "run_here":
        return lambda tasks: run_here(tasks, report_status=heard.report_status)
    return lambda tasks: processes(tasks, heard)


def processes(tasks: list[Write], heard: Heard) -> Generator[Ended, None, None]:
    return run_in_processes(
        tasks,
        jobs=2,
        report_status=heard.report_status,
        report_line=heard.report_line,
        preload=("tests.tasks.small_tasks",),
    )


def test_all_are_done_and_one_that_fails_leaves_the_others_be(do: Do, tmp_path: Path) -> None:
    hows = {"a": "well", "b": "refused", "c": "broken", "d": "well"}
    ended = {e.task.name: e for e in do([Write(tmp_path, *item) for item in hows.items()])}
    assert ended["a"].error is None and ended["d"].error is None
    assert ended["b"].error == "not like this"
    bug = ended["c"].error
    assert bug is not None and "ZeroDivisionError: a bug (" in bug and "small_tasks.py" in bug
    assert (tmp_path / "d").read_text().startswith("done")


def test_each_process_is_its_own_and_two_run_at_a_time(tmp_path: Path) -> None:
    heard = Heard()
    # Each waits for the other to begin: one at a time would never end.
    pair = [Write(tmp_path, "a", meets="b"), Write(tmp_path, "b", meets="a")]
    assert all(ended.error is None for ended in processes(pair, heard))
    pids = {(tmp_path / name).read_text() for name in "ab"}
    assert len(pids) == 2 and f"done {os.getpid()}" not in pids
    assert sorted(heard.told) == [("a", "working"), ("b", "working")]
    assert sorted(heard.said) == [
        ("a", "a says"),
        ("a", "so"),
        ("b", "b says"),
        ("b", "so"),
    ]


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    tasks = [Write(tmp_path, "a", "killed"), Write(tmp_path, "b")]
    ended = {e.task.name: e.error for e in processes(tasks, Heard())}
    assert ended == {"a": "the process ended with SIGKILL (out of memory?)", "b": None}


def test_when_the_iterator_is_closed_the_children_save_and_end(tmp_path: Path) -> None:
    tasks = [Write(tmp_path, "a"), Write(tmp_path, "b", "long")]
    with contextlib.closing(processes(tasks, Heard())) as ended:
        assert next(ended).task.name == "a"
        wait_for(lambda: (tmp_path / "b").exists() and bool((tmp_path / "b").read_text()))
        pid = int((tmp_path / "b").read_text().split()[1])
    assert (tmp_path / "b").read_text() == "saved"
    assert not Path(f"/proc/{pid}").exists()


def test_children_of_a_killed_process_save_and_end(tmp_path: Path) -> None:
    program = (
        "from tests.tasks.test_processes import *\n"
        f"list(processes([Write(Path({str(tmp_path)!r}), 'a', 'long')], Heard()))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    wait_for(lambda: (tmp_path / "a").exists() and (tmp_path / "a").read_text().startswith("beg"))
    parent.kill()
    parent.wait()
    wait_for(lambda: (tmp_path / "a").read_text() == "saved")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
