"""Tasks on the machines of a cluster: their folders lie where the driver is, files travel.

A task is one task of Ray's, in a folder of its own. What is new in it travels to a desk, an actor
beside the driver and the one writer of the folders, whenever the task tells of its progress; a task
that Ray starts again elsewhere goes on from there. So no machine needs to see the folders, and a
lost machine costs what a killed process does: a training an epoch.
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
from alp_repro.tasks.cluster import RETRIES, Cluster, Share, told, use_threads
from alp_repro.tasks.task import Ended, FolderTask, Lines, Status, outcome

_TELL_SECONDS = 1.0
_LOCK_SECONDS = 30.0  # that the desk of a driver that was killed may still be there

# Files relative to a task's folder, as uint8 arrays.
Files = dict[str, np.ndarray]
_Value = TypeVar("_Value")


class Shared(Generic[_Value]):
    """A value that many tasks need, put into the cluster once; called, it is fetched."""

    def __init__(self, value: _Value) -> None:
        """Puts it there."""
        self._ref = ray.put(value)

    def __call__(self) -> _Value:
        """The value."""
        return ray.get(self._ref)


@dataclasses.dataclass(frozen=True)
class News:
    """What tasks tell of their progress, by name, and the lines that they print."""

    told: dict[str, Status]
    said: list[tuple[str, str]]


class _Desk:
    """The writer of the folders, and what the tasks tell; lives on the driver's machine."""

    def __init__(self, folders: dict[str, Path]) -> None:
        """Locks the folders, as a task in one process does."""
        self._folders = folders
        self._told: dict[str, Status] = {}
        self._said: list[tuple[str, str]] = []
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
        """Answers when the folders are locked."""

    def read(self, name: str) -> Files:
        """What there is of a task."""
        folder = self._folders[name]
        return {file: np.fromfile(folder / file, np.uint8) for file in _stamps(folder)}

    def write(self, name: str, new: Files, gone: set[str]) -> None:
        """Writes files of a task in their order, then removes those that it has removed."""
        folder = self._folders[name]
        for file, content in new.items():
            _write(folder / file, content)
        for file in gone:
            (folder / file).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it is not empty
                (folder / file).parent.rmdir()

    def tell(self, name: str, status: Status) -> None:
        """Notes what a task tells."""
        self._told[name] = status

    def say(self, name: str, line: str) -> None:
        """Notes a line that a task prints."""
        self._said.append((name, line))

    def news(self) -> News:
        """What was told and said since the last call."""
        news = News(self._told, self._said)
        self._told, self._said = {}, []
        return news


def _write(path: Path, content: np.ndarray) -> None:
    files.write_atomically(path, lambda file: content.tofile(file))


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """The files of a folder, those that are hidden left out, and what changes with them.

    They come as they were written: what says that a task is done is written last.
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
    """A folder whose files are those of a task's folder at the desk."""

    def __init__(self, folder: Path, desk: Any, name: str) -> None:
        """Fetches what there is."""
        self._folder, self._desk, self._name = folder, desk, name
        for file, content in ray.get(desk.read.remote(name)).items():
            _write(folder / file, content)
        self._sent = _stamps(folder)

    def send(self) -> None:
        """Sends what has changed since the last time, and waits until it is written."""
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


def _do(task: FolderTask, desk: Any, share: Share) -> tuple[float, str | None]:
    """Ray's task; returns the seconds that ours took, and in a line why it failed if it did."""
    started = time.monotonic()
    use_threads(share)
    with tempfile.TemporaryDirectory() as folder:
        mirror, last = _Mirror(Path(folder), desk, task.name), [float("-inf")]

        def tell(status: Status) -> None:
            mirror.send()
            if time.monotonic() - last[0] > _TELL_SECONDS:
                last[0] = time.monotonic()
                desk.tell.remote(task.name, status)

        with contextlib.redirect_stdout(Lines(lambda line: desk.say.remote(task.name, line))):
            error = outcome(task.in_folder(Path(folder)), tell)
        mirror.send()
    return time.monotonic() - started, error


class ClusterTasks:
    """Tasks that run, or wait for room, on a cluster; each has another name and folder."""

    def __init__(self, cluster: Cluster, tasks: Sequence[FolderTask]) -> None:
        """Hands them to Ray.

        Raises:
          InputError: another process fills one of the folders.
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
            raise told(error) from None
        do = ray.remote(max_retries=RETRIES)(_do).options(**cluster.share.options)
        for task in tasks:
            ref = do.remote(task, self._desk, cluster.share)
            self._running[ref] = task, time.monotonic()
        cluster.tasks = len(self._running)

    def news(self) -> News:
        """What tasks have told and said since the last call."""
        return ray.get(self._desk.news.remote()) if self._desk is not None else News({}, [])

    def ended(self, *, seconds: float = 0.0) -> list[Ended]:
        """Tasks that have ended since the last call; waits so long for one."""
        back, _ = ray.wait(list(self._running), timeout=seconds) if self._running else ([], [])
        found = []
        for ref in back:
            task, since = self._running.pop(ref)
            try:
                found.append(Ended(task, *ray.get(ref)))
            except RayError as error:
                found.append(Ended(task, time.monotonic() - since, str(told(error))))
        self._cluster.tasks = len(self._running)
        return found

    def __len__(self) -> int:
        return len(self._running)
