"""Runs tasks on the machines of a cluster; their folders are on the driver's machine.

A task is one task of Ray, with its own temporary folder. Whenever the task reports its progress,
new files in it are sent to a desk: an actor on the driver's machine, and the only writer of the
folders. A task that Ray restarts elsewhere resumes from there. So the machines need no shared file
system, and a lost machine costs as much as a killed process: at most an epoch of a training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import ray
from ray.exceptions import RayError

from alp_repro import files
from alp_repro.errors import InputError
from alp_repro.runs import RunDir
from alp_repro.tasks.cluster import RETRIES, Cluster, TaskResources, as_input_error, use_threads
from alp_repro.tasks.task import Ended, FolderTask, Lines, Status, run_task

_TELL_SECONDS = 1.0
_LOCK_SECONDS = 30.0  # for which the desk of a killed driver may still exist

# Files relative to a task's folder, as uint8 arrays.
Files = dict[str, np.ndarray]
_Value = TypeVar("_Value")


class Shared(Generic[_Value]):
    """A value that many tasks need, stored in the cluster once, and fetched by calling it."""

    def __init__(self, value: _Value) -> None:
        """Store the value."""
        self._ref = ray.put(value)

    def __call__(self) -> _Value:
        """Fetch the value."""
        return ray.get(self._ref)


@dataclasses.dataclass(frozen=True)
class News:
    """The status of tasks, by name, and the lines that they printed."""

    statuses: dict[str, Status]
    lines: list[tuple[str, str]]


class _Desk:
    """The writer of the folders, on the driver's machine; also collects the tasks' messages."""

    def __init__(self, folders: dict[str, Path]) -> None:
        """Lock the folders, as a task in one process does."""
        self._folders = folders
        self._statuses: dict[str, Status] = {}
        self._lines: list[tuple[str, str]] = []
        self._locks = contextlib.ExitStack()
        deadline = time.monotonic() + _LOCK_SECONDS
        for folder in folders.values():
            while True:
                try:
                    self._locks.enter_context(RunDir(folder).exclusive())
                    break
                except InputError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.5)

    def ready(self) -> None:
        """Return when the folders are locked."""

    def read(self, name: str) -> Files:
        """Return the files of a task."""
        folder = self._folders[name]
        return {file: np.fromfile(folder / file, np.uint8) for file in _stamps(folder)}

    def write(self, name: str, new: Files, gone: set[str]) -> None:
        """Write files of a task in their order, then remove those that it has removed."""
        folder = self._folders[name]
        for file, content in new.items():
            _write(folder / file, content)
        for file in gone:
            (folder / file).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it is not empty
                (folder / file).parent.rmdir()

    def report_status(self, name: str, status: Status) -> None:
        """Store the status of a task."""
        self._statuses[name] = status

    def report_line(self, name: str, line: str) -> None:
        """Store a line that a task printed."""
        self._lines.append((name, line))

    def news(self) -> News:
        """Return the messages since the last call."""
        news = News(self._statuses, self._lines)
        self._statuses, self._lines = {}, []
        return news


def _write(path: Path, content: np.ndarray) -> None:
    files.write_atomically(path, lambda file: content.tofile(file))


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return the files of a folder, without hidden ones, with stamps that change with them.

    They are in the order in which they were written: the file that marks a task as done is last.
    """
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            status = path.stat()
            found[str(path.relative_to(folder))] = (
                status.st_mtime_ns,
                status.st_ino,
                status.st_size,
            )
    return dict(sorted(found.items(), key=lambda item: item[1]))


class _Mirror:
    """A copy of a task's folder at the desk."""

    def __init__(self, folder: Path, desk: Any, name: str) -> None:
        """Fetch the files."""
        self._folder, self._desk, self._name = folder, desk, name
        for file, content in ray.get(desk.read.remote(name)).items():
            _write(folder / file, content)
        self._sent = _stamps(folder)

    def send(self) -> None:
        """Send the changes since the last call, and wait until they are written."""
        found = _stamps(self._folder)
        if found == self._sent:
            return
        new = {
            file: np.fromfile(self._folder / file, np.uint8)
            for file, stamp in found.items()
            if self._sent.get(file) != stamp
        }
        ray.get(self._desk.write.remote(self._name, new, self._sent.keys() - found.keys()))
        self._sent = found


def _do(task: FolderTask, desk: Any, share: TaskResources) -> tuple[float, str | None]:
    """Run a task as a task of Ray; return its seconds and, if it failed, why."""
    started = time.monotonic()
    use_threads(share)
    with tempfile.TemporaryDirectory() as folder:
        mirror, last = _Mirror(Path(folder), desk, task.name), [float("-inf")]

        def report_status(status: Status) -> None:
            mirror.send()
            if time.monotonic() - last[0] > _TELL_SECONDS:
                last[0] = time.monotonic()
                desk.report_status.remote(task.name, status)

        with contextlib.redirect_stdout(
            Lines(lambda line: desk.report_line.remote(task.name, line))
        ):
            error = run_task(task.in_folder(Path(folder)), report_status)
        mirror.send()
    return time.monotonic() - started, error


class ClusterTasks:
    """Tasks that run, or wait for resources, on a cluster; names and folders are distinct."""

    def __init__(self, cluster: Cluster, tasks: Sequence[FolderTask]) -> None:
        """Submit the tasks to Ray.

        Raises:
          InputError: another process uses one of the folders.
        """
        self._cluster = cluster
        self._running: dict[ray.ObjectRef, tuple[FolderTask, float]] = {}
        self._desk: Any = None
        if not tasks:
            return
        folders = {task.name: task.folder.resolve() for task in tasks}
        desk = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=cluster.here())
        self._desk = desk.remote(folders)
        try:
            ray.get(self._desk.ready.remote())
        except RayError as error:
            raise as_input_error(error) from None
        do = ray.remote(max_retries=RETRIES)(_do).options(**cluster.share.options)
        for task in tasks:
            ref = do.remote(task, self._desk, cluster.share)
            self._running[ref] = task, time.monotonic()
        cluster.tasks = len(self._running)

    def news(self) -> News:
        """Return the tasks' messages since the last call."""
        return ray.get(self._desk.news.remote()) if self._desk is not None else News({}, [])

    def ended(self, *, seconds: float = 0.0) -> list[Ended]:
        """Return the tasks that have ended since the last call; wait up to `seconds` for one."""
        back, _ = ray.wait(list(self._running), timeout=seconds) if self._running else ([], [])
        found = []
        for ref in back:
            task, since = self._running.pop(ref)
            try:
                found.append(Ended(task, *ray.get(ref)))
            except RayError as error:
                found.append(Ended(task, time.monotonic() - since, str(as_input_error(error))))
        self._cluster.tasks = len(self._running)
        return found

    def __len__(self) -> int:
        return len(self._running)
