"""Files that are written whole or not at all, locked while one works on them, checked when read.

Every file is written under a temporary name and renamed. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from alp_repro.errors import InputError
from alp_repro.validation.decoding import from_json, read_json

_ANY_DATE = (1980, 1, 1, 0, 0, 0)

__all__ = [
    "array",
    "exclusive",
    "expanded",
    "make_folder",
    "note",
    "plain",
    "read_json",
    "reading_arrays",
    "remove_leftover",
    "write_arrays",
    "write_atomically",
    "write_json",
    "write_text",
]


def make_folder(path: Path) -> None:
    """Creates a folder and its parents, and checks that files can be written to it.

    Raises:
      InputError: it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A name of its own for each thread and machine that asks.
        probe = path / f".probe.{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to {path} ({error.strerror}): name a folder that you may write to"
        ) from error


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it.

    Raises:
      InputError: the disk is full or the folder not writable; `path` is then as it was before.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"could not write {path} ({error.strerror or error}): free some space or name another "
            "folder; what was there before is unchanged"
        ) from error
    finally:
        remove_leftover(temporary)


def remove_leftover(path: Path) -> None:
    """Remove a temporary file if it can be; what is told then is the error that left it."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, atomically."""

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    write_atomically(path, write)


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Makes the folder of a result and lets one process at a time work on the result.

    The lock goes with the process, however it ends; what a killed one left half-written is removed.

    Args:
      path: the result.
      wait: waits for another process that works on it, instead of refusing.

    Raises:
      InputError: another process works on it, or the folder or its lock cannot be written to.
    """
    make_folder(path.parent)
    # The umask decides: in a folder that a group shares, the next one may be somebody else.
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), mode=0o666)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        raise InputError(
            f"{path} is being worked on by another process: wait for it, then ask again"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise InputError(
            f"{lock.lock_file} cannot be locked ({getattr(error, 'strerror', None) or error}): it "
            "may be somebody else's; name a folder of your own"
        ) from error
    try:
        for temporary in path.parent.glob(f".*.{glob.escape(path.name)}"):
            remove_leftover(temporary)
        yield
    finally:
        lock.release()


def expanded(path: str | Path) -> Path:
    """Return the path with `~` and `~user` replaced by a home folder.

    Raises:
      InputError: there is no such user, or it is nothing that a file can be called.
    """
    try:
        text = os.fspath(path)
        named = isinstance(text, str) and "\0" not in text
        os.lstat(text)
    except (TypeError, ValueError):
        named = False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(
                f"{str(path)[:60]}…: a path of {len(str(path))} characters is longer than the "
                "system takes: name a shorter one"
            ) from None
    if not named:
        raise InputError(
            f"{str(path)[:60]!r} ({type(path).__name__}): a path is needed, which has no NUL "
            "character"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{path}: nobody has this home folder; write ./{path} for a folder of this name"
        ) from None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], **notes: Any) -> None:
    """Writes arrays, and notes as JSON text beside them, to an `.npz` file, atomically."""
    texts = {name: np.array(json.dumps(note)) for name, note in notes.items()}
    everything: dict[str, Any] = {**arrays, **texts}

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in everything.items():
                # As NumPy's savez, but for the date: a zip holds none before 1980, where a clock
                # may well stand.
                entry = zipfile.ZipInfo(f"{name}.npy", _ANY_DATE)
                with archive.open(entry, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asanyarray(content), allow_pickle=False)

    write_atomically(path, write)


@contextlib.contextmanager
def reading_arrays(path: Path, *, what: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens an `.npz` file; whatever does not fit while it is read becomes one line.

    Raises:
      InputError: the file is truncated or holds something other than `what`.
    """
    try:
        with path.open("rb") as content, np.load(content) as file:
            for member in file.zip.infolist():
                if member.compress_type or member.flag_bits & 1:
                    raise InputError("a part is compressed or encrypted, which ours never are")
            yield file
    except Exception as error:  # zipfile and NumPy raise errors of many kinds for damaged files
        told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path} is truncated or no {what} ({' '.join(told.split())[:200]}): move it away to "
            "have it computed again"
        ) from error


def array(
    file: np.lib.npyio.NpzFile, name: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...]
) -> np.ndarray:
    """An array of this dtype and shape (None: any length) that `write_arrays` wrote.

    Raises:
      InputError: it is another, said in the words that `reading_arrays` adds to.
    """
    found = file[name]
    fits = len(found.shape) == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, found.shape, strict=True)
    )
    if found.dtype != np.dtype(dtype) or not fits:
        lengths = ", ".join("n" if length is None else str(length) for length in shape)
        right = f"{np.dtype(dtype)} [{lengths}]"
        raise InputError(f"{name} is {found.dtype} {list(found.shape)}; {right} is right")
    return found


def note(file: np.lib.npyio.NpzFile, name: str, kind: Any = dict[str, Any]) -> Any:
    """A note that `write_arrays` wrote, read as a type; see `decoding.from_json`."""
    text = file[name]
    if text.shape or text.dtype.kind != "U":
        raise ValueError(f"the note {name} is no text")
    return from_json(str(text), kind, source=f"the note {name}")


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def plain(value: Any) -> Any:
    """A value as JSON gives it back (tuples become lists), for comparing with what was read."""
    return json.loads(json.dumps(value))
