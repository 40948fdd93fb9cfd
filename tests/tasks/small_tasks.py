"""Tasks for test_processes.py, in a module that a child process can import."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from alp_repro.errors import InputError


@dataclasses.dataclass(frozen=True)
class Write:
    """Writes its process' id to a file; `how` says how it goes."""

    folder: str
    name: str
    how: str = "well"
    meets: str | None = None

    def run(self, tell: Callable[[str], None]) -> None:
        path = Path(self.folder) / self.name
        if self.how == "long":
            try:
                path.write_text(f"begun {os.getpid()}")
                time.sleep(600)
            finally:
                path.write_text("saved")
        path.write_text(f"begun {os.getpid()}")
        tell("working")
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
