"""Child processes that end with their parent, even when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

STOP_SECONDS = 120.0  # the time for a process to save its progress and end

_EXIT_INTERRUPTED = 130
_PIPE = "ALP_REPRO_PARENT"  # names the end of a pipe whose other end the parent holds


def end_after(parent_ends: Callable[[], object], *, seconds: float = STOP_SECONDS) -> None:
    """End this process once `parent_ends` returns: by SIGTERM, and later without waiting.

    Python handles signals between two of its own steps, not during a long native call.

    Args:
      parent_ends: returns when the parent has ended; it is called in a separate thread.
      seconds: the time for this process to save its progress.
    """

    def watch() -> None:
        parent_ends()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        os._exit(_EXIT_INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def run(command: Sequence[str]) -> int:
    """Run a program that calls `follow_parent`, and return its exit code.

    If waiting is interrupted, the program is stopped first: by SIGTERM, then by SIGKILL.
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
    """End this process with its parent, if `run` started it."""
    number = os.environ.pop(_PIPE, "")
    if not number.isdecimal():
        return
    pipe = int(number)
    try:
        os.set_inheritable(pipe, False)
    except OSError:  # it was not handed down to us
        return
    end_after(lambda: os.read(pipe, 1), seconds=seconds)
