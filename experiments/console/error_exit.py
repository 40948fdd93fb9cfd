"""How a binary reports an error: one line on stderr, and an exit code.

It guards the imports as well, so it must not import anything slow. Exit codes: 2 for bad input, 70
for an unexpected error (`EX_SOFTWARE`), 130 for Ctrl-C and SIGTERM, 141 if the reader of our output
has closed the pipe.
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
# Remedies for errors of the operating system.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EACCES: "choose a path with read and write permission",
    errno.EPERM: "choose a path with read and write permission",
}
# Some lines of a terminal; the middle of a longer message is left out.
_LONGEST_MESSAGE = 400


def starting() -> bool:
    """Return whether this process is being started as `python -m …` or as a console script."""
    return sys.argv[0] == "-m" or Path(sys.argv[0]).name.startswith("alp-")


def guard_imports() -> None:
    """Report uncaught errors in one line from now on, and exit at once on Ctrl-C.

    `app.run` takes over when it begins. Until then there is no work to lose, and native modules
    turn an interrupt during their import into an error of their own.
    """
    sys.excepthook = _end_uncaught
    _leave_at_once()


@contextlib.contextmanager
def interrupts_end_at_once() -> Iterator[None]:
    """Exit at once on Ctrl-C and SIGTERM inside the block; restore their handlers after it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
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
    """Exit at once on a signal, with a line on a copy of stderr, which is returned."""
    stderr = os.dup(2)  # stderr itself may be redirected during imports

    def leave(_signal: int, _frame: FrameType | None) -> None:
        os.write(stderr, b"interrupted before any work had started\n")
        os._exit(EXIT_INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    return stderr


def end(error: BaseException) -> NoReturn:
    """Report an exception and exit with its exit code.

    Raises:
      SystemExit: always.
    """
    if isinstance(error, SystemExit):
        _flush()
        raise error
    if TRACEBACK_FLAG in sys.argv:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        # A second signal must not interrupt the shutdown.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _tell("interrupted: progress is saved; run the same command to resume")
        code = EXIT_INTERRUPTED
    elif isinstance(error, BrokenPipeError):
        code = EXIT_NO_READER
    elif _is_input_error(error):
        _tell(f"error: {one_line(str(error))}")
        code = EXIT_BAD_INPUT
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        remedy = _REMEDIES.get(error.errno or 0, "choose another file or folder")
        _tell(f"error: {one_line(f'{error.filename}: {error.strerror}: {remedy}')}")
        code = EXIT_BAD_INPUT
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _tell(f"error: {one_line(text)} (unexpected error; run with {TRACEBACK_FLAG} for details)")
        code = EXIT_UNEXPECTED
    _flush()
    sys.exit(code)


def flush_output() -> None:
    """Flush stdout while an error can still be reported."""
    sys.stdout.flush()


def one_line(message: str) -> str:
    """Return a message without line breaks, a long one without its middle."""
    line = " ".join(message.split())
    if len(line) <= _LONGEST_MESSAGE or TRACEBACK_FLAG in sys.argv:
        return line
    head = _LONGEST_MESSAGE * 5 // 8
    return f"{line[:head].rstrip()} […] {line[head - _LONGEST_MESSAGE :].lstrip()}"


def replace_unprintable() -> None:
    """Print characters that the terminal does not support, such as ε, as `?`."""
    for stream in (sys.stdout, sys.stderr):
        # A test or a notebook may have replaced the stream.
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
    """Flush stdout; if it is closed, keep Python from complaining at exit."""
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
