"""The interface of a task, for all ways to run it: here, in other processes, on a cluster."""

from __future__ import annotations

import dataclasses
import io
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from alp_repro.errors import InputError

_Moved = TypeVar("_Moved", bound="FolderTask")


@dataclasses.dataclass(frozen=True)
class Status:
    """What a task is doing, in a few words, and the seconds that it has left, if known."""

    text: str
    seconds_left: float | None = None


class Task(Protocol):
    """Work that can be described by a few values (a frozen dataclass) and done anywhere.

    Its result is files; processes exchange only its status and whether it succeeded.
    """

    @property
    def name(self) -> str:
        """The task's name, for messages."""

    def run(self, report_status: Callable[[Status], None]) -> None:
        """Do the work; call `report_status` with the status from time to time.

        Raises:
          InputError: it cannot be done, in one line.
        """


class FolderTask(Task, Protocol):
    """A task that can also run on another machine, in a copy of its folder.

    All of its files are in the folder, and it resumes from those that exist: a copy of the task in
    another folder, with the same files, does the same.
    """

    @property
    def folder(self) -> Path:
        """The folder in which it works; it may not exist yet."""

    def in_folder(self: _Moved, folder: Path) -> _Moved:
        """Return the same task in another folder."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A task that has ended; `error` says in one line why it failed, None: it succeeded."""

    task: Task
    seconds: float
    error: str | None = None


def run_task(task: Task, report_status: Callable[[Status], None]) -> str | None:
    """Run a task; return None if it succeeds, else the error in one line."""
    try:
        task.run(report_status)
    except InputError as error:
        return str(error)
    except Exception as error:  # a bug of ours, but no reason to stop the other tasks
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
    return None


class Lines(io.TextIOBase):
    """A stream that passes on whole lines."""

    def __init__(self, report_line: Callable[[str], None]) -> None:
        """Create a stream that calls `report_line` with each line."""
        super().__init__()
        self._report_line, self._rest = report_line, ""

    def write(self, text: str) -> int:
        """Pass on the complete lines."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._report_line(line)
        return len(text)
