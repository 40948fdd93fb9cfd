"""Tasks for the tests of what carries them out, in a module that a child process can import."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from alp_repro.errors import InputError
from alp_repro.tasks import Status


@dataclasses.dataclass(frozen=True)
class Write:
    """Writes its process' id to a file; `how` says how it goes."""

    folder: Path
    name: str
    how: str = "well"
    meets: str | None = None

    def in_folder(self, folder: Path) -> Write:
        return dataclasses.replace(self, folder=folder)

    def run(self, report_status: Callable[[Status], None]) -> None:
        path = self.folder / self.name
        if self.how == "long":
            try:
                path.write_text(f"begun {os.getpid()}")
                time.sleep(600)
            finally:
                path.write_text("saved")
        path.write_text(f"begun {os.getpid()}")
        report_status(Status("working"))
        print(f"{self.name} says\nso")
        while self.meets is not None and not (path.parent / self.meets).exists():
            time.sleep(0.01)
        if self.how == "refused":
            raise InputError("not like this")
        if self.how == "broken":
            raise ZeroDivisionError("a bug")
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        path.write_text(f"done {os.getpid()}")


@dataclasses.dataclass(frozen=True)
class Count:
    """Counts to four, a file a number, and adds up in the end; its process dies once, after two."""

    folder: Path
    name: str

    def in_folder(self, folder: Path) -> Count:
        return dataclasses.replace(self, folder=folder)

    def run(self, report_status: Callable[[Status], None]) -> None:
        counted = self.folder / "counted"
        counted.mkdir(exist_ok=True)
        begun_with = len(list(counted.iterdir()))
        for number in range(begun_with, 4):
            (counted / str(number)).write_text(str(os.getpid()))
            report_status(Status(f"{number + 1} of 4"))
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        pids = [(counted / str(number)).read_text() for number in range(4)]
        (self.folder / "result").write_text(" ".join(pids))
        shutil.rmtree(counted)
