"""Runs a binary: parses its flags, and reports any error in one line (see `error_exit`)."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

from absl import app, flags

from alp_repro.errors import InputError, MissingDataError, sys_exit_refused
from alp_repro.system import interrupts, orphans

from ..flags import flagfiles
from ..flags.definitions import check_finite
from . import error_exit
from .commands import prepare_command

flags.DEFINE_boolean("traceback", False, "Print the traceback of an error, not only its message.")


def run(main: Callable[[list[str]], int | None]) -> None:
    """Parse the flags and run `main`, whose result is the exit code (None: 0).

    SIGTERM is handled like Ctrl-C: running work saves its progress and exits with code 130.

    Raises:
      SystemExit: always; its code is 0 or one of `error_exit`'s.
    """

    def guarded(argv: list[str]) -> int | None:
        # TensorFlow warns when a function is retraced for each model of a table: that is intended.
        logging.getLogger("tensorflow").setLevel("ERROR")
        if len(argv) > 1:
            raise InputError(f"unexpected argument {argv[1]!r}: expected flags, as --name=value")
        try:
            # Our own code returns its exit code: only a user's model or function calls sys.exit.
            with sys_exit_refused("the code of a model or function"):
                code = main(argv)
        except MissingDataError as error:
            raise InputError(f"{error}: {prepare_command(error)}") from error
        error_exit.flush_output()
        return code

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupts.raise_interrupt)
        error_exit.replace_unprintable()
        _lend_to_script(main.__module__)
        orphans.follow_parent()
        app.run(guarded, flags_parser=_parse_flags)
    except BaseException as error:
        error_exit.end(error)


def _lend_to_script(binary: str) -> None:
    """Show the binary's docstring and flags in the --help of its console script."""
    script = sys.modules["__main__"]
    if script.__doc__ is None:
        script.__doc__ = sys.modules[binary].__doc__
    for flag in flags.FLAGS.get_key_flags_for_module(binary):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        given = flagfiles.expand(argv[1:])
        for argument in given:
            if "\0" in argument:
                raise InputError(f"{argument[:60]!r}: a flag must not contain a NUL character")
        remaining = flags.FLAGS([argv[0], *given])
    except flags.Error as error:
        raise InputError(f"{error} (see --helpfull for all flags)") from error
    check_finite(flags.FLAGS)
    return remaining
