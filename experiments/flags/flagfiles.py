"""Flagfiles: found in the current folder or among those that come with the program, and expanded.

absl does this too, but in the locale's encoding, without a limit on the size, and only from the
current folder.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from alp_repro import shipped
from alp_repro.errors import InputError
from alp_repro.files import expanded

_LARGEST_FILE = 1_000_000
_MOST_LINES = 10_000


def expand(arguments: list[str]) -> list[str]:
    """Replace each `--flagfile=FILE` (or `--flagfile FILE`) by the flags in the file.

    Empty lines in a file, and those that begin with # or //, are ignored. A file may include
    another flagfile.

    Raises:
      InputError: a file does not exist, is not UTF-8 text, or includes itself.
    """
    return _expand(arguments, ())


def one_of(names: Iterable[str], folder: Path) -> str:
    """Return the end of a message with the names to choose from in a folder of flagfiles."""
    known = ", ".join(names)
    return f"expected one of {known}" if known else f"{folder} has none; see --flags_dir"


def _expand(arguments: list[str], inside: tuple[Path, ...]) -> list[str]:
    expanded: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            return [*expanded, argument, *waiting]
        name, separator, value = argument.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            expanded.append(argument)
            continue
        if not separator:
            if not waiting:
                raise InputError("--flagfile: expected the name of a file")
            value = waiting.pop(0)
        path = _find(value.strip())
        if path in inside:
            chain = " -> ".join(str(file) for file in (*inside, path))
            raise InputError(f"--flagfile: {path} includes itself ({chain})")
        expanded += _expand(_lines(path), (*inside, path))
        if len(expanded) > _MOST_LINES:
            raise InputError(f"--flagfile={value}: more than {_MOST_LINES} flags in total")
    return expanded


def _find(name: str) -> Path:
    """Return the file in the current folder, or else the one of this name among our flagfiles."""
    try:
        given = expanded(name)
        candidates = [given, shipped.folder("flags").parent / given]
        found = next((path.resolve() for path in candidates if path.exists()), None)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"--flagfile={name}: {error}") from None
    if found is None:
        raise InputError(f"--flagfile={name}: the file does not exist")
    return found


def _lines(path: Path) -> list[str]:
    try:
        status = path.stat()
        # A device or a FIFO might never end.
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
            raise InputError(
                f"--flagfile={path}: expected a regular file of at most {_LARGEST_FILE} bytes"
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"--flagfile={path}: not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise InputError(f"--flagfile={path}: {error.strerror}") from None
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "//"))]
