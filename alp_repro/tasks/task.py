"""What a task is, for all that carry them out: this process, others, machines of a cluster."""

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
    """What a task is doing: a few words, and for how many more seconds if that is known."""

    text: str
    seconds_left: float | None = None


class Task(Protocol):
    """Work that can be described in a few values (a frozen dataclass) and done anywhere.

    Its result is files; what passes between processes is a few words of progress and whether it
    went well.
    """

    @property
    def name(self) -> str:
        """What people call it."""

    def run(self, tell: Callable[[Status], None]) -> None:
        """Does it; `tell` is called whenever there is something to say.

        Raises:
          InputError: it cannot be done, in one line.
        """


class FolderTask(Task, Protocol):
    """A task that can also be done where its folder is not.

    All files that it leaves lie in the folder, and it goes on from those that are there: a copy of
    the task in another folder, with the same files, does the same.
    """

    @property
    def folder(self) -> Path:
        """Where it works; it may not exist yet."""

    def in_folder(self: _Moved, folder: Path) -> _Moved:
        """The same task in another folder."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A task that is over; `error` says in one line why it is not done, None that it is."""

    task: Task
    seconds: float
    error: str | None = None


def outcome(task: Task, tell: Callable[[Status], None]) -> str | None:
    """Runs a task; None when it is done, else one line."""
    try:
        task.run(tell)
    except InputError as error:
        return str(error)
    except Exception as error:  # ours to find, and no reason to give up the others
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
    return None


class Lines(io.TextIOBase):
    """A stream that passes on whole lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Takes what is called with each line."""
        super().__init__()
        self._say, self._rest = say, ""

    def write(self, text: str) -> int:
        """Passes on the lines that are whole by now."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line)
        return len(text)
