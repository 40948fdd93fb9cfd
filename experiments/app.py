"""Runs a binary: bad input ends in one line and exit code 2, Ctrl-C and SIGTERM in a clean stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import tensorflow as tf
from absl import app, flags

from alp_repro.errors import InputError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs main, with errors of the user's told in one line.

    SIGTERM is handled as Ctrl-C is: what runs saves its progress and ends with exit code 130.
    """

    def guarded(argv: list[str]) -> None:
        signal.signal(signal.SIGTERM, _interrupt)
        # TensorFlow warns of a function traced anew for each model of a table, which is meant.
        tf.get_logger().setLevel("ERROR")
        if len(argv) > 1:
            fail(f"unexpected argument {argv[1]!r}: settings are given as --flag=value")
        try:
            main(argv)
        except InputError as error:
            fail(str(error))
        except KeyboardInterrupt:
            # A second signal must not tear up the way out.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("interrupted: what was done is saved; the same command goes on", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        fail(f"{error} (--helpfull lists all flags)")


def fail(message: str) -> NoReturn:
    """Ends the program with one line on stderr and exit code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)
