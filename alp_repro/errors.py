"""The error for bad input: its message says what is wrong, where, and what is expected."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

_LONGEST = 200  # characters of another library's message to show
_NOISE = re.compile(r"\x1b\[[0-9;]*m|\{\{.*?\}\}")  # colours, names of nodes in a graph


class InputError(ValueError):
    """Bad input from the user.

    The message is one line, meant for the person who gave the input; the binaries print it
    without a traceback and exit with code 2. Any other exception is a bug of ours.
    """

    def __init__(self, message: str) -> None:
        """Join the lines of the message, as it may quote another library's error."""
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


class MissingDataError(InputError):
    """A data set that is not prepared and could not be downloaded.

    Attributes:
      dataset: its name.
      data_dir: the folder in which it was looked for.
    """

    def __init__(self, message: str, *, dataset: str, data_dir: Path) -> None:
        """Keep the names for a hint about preparing local files."""
        super().__init__(message)
        self.dataset, self.data_dir = dataset, data_dir


class NoGradientError(InputError):
    """A model without a gradient, which gradient attacks cannot attack."""


@contextlib.contextmanager
def sys_exit_refused(what: str) -> Iterator[None]:
    """Refuse a `sys.exit()` in user code, which would end the program silently.

    Args:
      what: the code, as the beginning of the message.

    Raises:
      InputError: the block raised SystemExit.
    """
    try:
        yield
    except SystemExit as error:
        raise InputError(
            f"{what} called sys.exit({error.code!r}): expected it to return; raise an exception, "
            "or move the exit below if __name__ == '__main__'"
        ) from error


def one_line(error: BaseException) -> str:
    """Return another library's error in one short line, without Keras' headline and colours."""
    # The text of a KeyError is its key.
    words = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = " ".join(_NOISE.sub("", str(words)).split())
    text = re.sub(r"^Exception encountered when calling \S+( \S+)?\. ", "", text)
    text = text.partition(" Arguments received by ")[0]
    text = text.rpartition(" Error encountered: ")[2]
    text = text.partition(" Traceback (most recent call last)")[0]
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return short or type(error).__name__


def reason(error: BaseException) -> str:
    """Return the type and the message of an exception in user code, in one line."""
    text, kind = one_line(error), type(error).__name__
    # TensorFlow passes on exceptions of Python with their type in the message.
    named = text == kind or re.match(r"[A-Za-z_.]*(Error|Exception|Interrupt)\b", text)
    return text if named else f"{kind}: {text}"
