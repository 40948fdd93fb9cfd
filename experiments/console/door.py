"""How a binary ends when something goes wrong: in one line on stderr and an exit code.

It guards the imports as well, so it must not import what takes time. Exit codes: 2 for bad input,
70 for what nobody foresaw (`EX_SOFTWARE`), 130 for Ctrl-C and SIGTERM, 141 when the reader of our
output has gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

EXIT_BAD_INPUT = 2
EXIT_UNEXPECTED = 70
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141

TRACEBACK_FLAG = "--traceback"
# What helps against what the system tells of a file.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EACCES: "name one that you may read and write",
    errno.EPERM: "name one that you may read and write",
}
# Some lines of a terminal; the middle of a longer message is left out.
_LONGEST_MESSAGE = 400


def starting() -> bool:
    """Whether this process is just being started as `python -m …` or as a console script."""
    return sys.argv[0] == "-m" or Path(sys.argv[0]).name.startswith("alp-")


def guard_imports() -> None:
    """From here on what nothing catches ends in one line, and Ctrl-C at once.

    `app.run` takes over when it begins. Until then nothing was done, so nothing is lost: and an
    interrupt that native modules meet while they are imported would end as an error of theirs.
    """
    sys.excepthook = _end_uncaught
    _leave_at_once()


@contextlib.contextmanager
def interrupts_end_at_once() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the program at once; after the block as they did before it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # the main one alone may say what signals do
        return
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    stderr = _leave_at_once()
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        os.close(stderr)


def _leave_at_once() -> int:
    """Makes signals leave at once, and tell so on a copy of stderr, which is given back."""
    stderr = os.dup(2)  # what is imported may be writing its notes elsewhere

    def leave(_signal: int, _frame: FrameType | None) -> None:
        os.write(stderr, b"interrupted: nothing had begun yet\n")
        os._exit(EXIT_INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    return stderr


def end(error: BaseException) -> NoReturn:
    """Ends the program as its exception asks for.

    Raises:
      SystemExit: always.
    """
    if isinstance(error, SystemExit):
        _flush()
        raise error
    if TRACEBACK_FLAG in sys.argv:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        # A second signal must not tear up the way out.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _tell("interrupted: what was done is saved; the same command goes on")
        code = EXIT_INTERRUPTED
    elif isinstance(error, BrokenPipeError):
        code = EXIT_NO_READER
    elif _is_input_error(error):
        _tell(f"error: {one_line(str(error))}")
        code = EXIT_BAD_INPUT
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        remedy = _REMEDIES.get(error.errno or 0, "name another file or folder")
        _tell(f"error: {one_line(f'{error.filename}: {error.strerror}: {remedy}')}")
        code = EXIT_BAD_INPUT
    else:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _tell(f"error: {one_line(what)} (unexpected; {TRACEBACK_FLAG} shows where)")
        code = EXIT_UNEXPECTED
    _flush()
    sys.exit(code)


def flush_output() -> None:
    """Writes out what was printed, while an error can still be told."""
    sys.stdout.flush()


def one_line(message: str) -> str:
    """A message without line breaks; of a long one the beginning and the end."""
    line = " ".join(message.split())
    if len(line) <= _LONGEST_MESSAGE or TRACEBACK_FLAG in sys.argv:
        return line
    head = _LONGEST_MESSAGE * 5 // 8
    return f"{line[:head].rstrip()} […] {line[head - _LONGEST_MESSAGE :].lstrip()}"


def replace_unprintable() -> None:
    """Lets characters that the terminal has not, such as ε, be printed as `?`."""
    for stream in (sys.stdout, sys.stderr):
        # A test or a notebook may have put something else there.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _is_input_error(error: BaseException) -> bool:
    # Not imported: while the imports are guarded, importing might fail again.
    errors = sys.modules.get("alp_repro.errors")
    return errors is not None and isinstance(error, errors.InputError)


def _tell(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        _flush()
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        print(line.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)


def _flush() -> None:
    """Writes out what was printed; where nothing takes it, Python must not complain at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())


def _end_uncaught(
    _kind: type[BaseException], error: BaseException, _where: TracebackType | None
) -> None:
    end(error)
