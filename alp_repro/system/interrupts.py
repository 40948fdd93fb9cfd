"""Ctrl-C and SIGTERM as KeyboardInterrupt, but never in the middle of an import."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

_IMPORTING = "<frozen importlib._bootstrap>"
_AGAIN_SECONDS = 0.1


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as a signal handler; during an import, once that is over.

    Native modules turn an exception that they meet while they are imported into an error of their
    own, or leave themselves half initialized.

    Raises:
      KeyboardInterrupt: no import is running.
    """
    if _importing(frame):
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the shutdown
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False
