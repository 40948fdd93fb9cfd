"""Processes that end with the one that started them, also when that one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

STOP_SECONDS = 120.0  # what a process may take to save what it has and end

_EXIT_INTERRUPTED = 130
_PIPE = "ALP_REPRO_PARENT"  # names the end of a pipe whose other end the parent holds


def end_after(parent_ends: Callable[[], object], *, seconds: float = STOP_SECONDS) -> None:
    """Let this process end once `parent_ends` returns: as by SIGTERM, and for certain later.

    Python hears a signal only between two of its own steps: in one long native call it does not.

    Args:
      parent_ends: returns when the parent has ended; it is called in a thread of its own.
      seconds: what the process may take to save what it has.
    """

    def watch() -> None:
        parent_ends()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        os._exit(_EXIT_INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def run(command: Sequence[str]) -> int:
    """Run a program that calls `follow_parent`, and return its exit code.

    What interrupts the waiting stops the program first: as by SIGTERM, then by SIGKILL.
    """
    theirs, ours = os.pipe()
    try:
        environment = {**os.environ, _PIPE: str(theirs)}
        process = subprocess.Popen(command, env=environment, pass_fds=[theirs])
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    finally:
        os.close(ours)


def follow_parent(*, seconds: float = STOP_SECONDS) -> None:
    """Let this process end with the one that started it by `run`; any other goes on."""
    number = os.environ.pop(_PIPE, "")
    if not number.isdecimal():
        return
    pipe = int(number)
    try:
        os.set_inheritable(pipe, False)
    except OSError:  # it was not handed down to us
        return
    end_after(lambda: os.read(pipe, 1), seconds=seconds)
