"""Files: written atomically, locked while a process works on them, checked when read.

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
from alp_repro.validation.arguments import fits
from alp_repro.validation.decoding import from_json, read_json

_ANY_DATE = (1980, 1, 1, 0, 0, 0)

__all__ = [
    "as_json_data",
    "exclusive",
    "expanded",
    "finished_files",
    "make_folder",
    "open_arrays",
    "read_array",
    "read_json",
    "read_note",
    "remove_leftover",
    "write_arrays",
    "write_atomically",
    "write_json",
    "write_text",
]


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and check that files can be written to it.

    Raises:
      InputError: it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A unique name, as several threads and machines may do this at once.
        probe = path / f".probe.{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to {path} ({error.strerror}): choose a folder with write permission"
        ) from error


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it to `path`.

    Raises:
      InputError: the disk is full or the folder not writable; `path` is then unchanged.
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
            f"could not write {path} ({error.strerror or error}): free some space or choose "
            "another folder; existing files are unchanged"
        ) from error
    finally:
        remove_leftover(temporary)


def remove_leftover(path: Path) -> None:
    """Remove a temporary file if possible, without hiding the error that left it behind."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def finished_files(folder: Path, pattern: str = "*.npz") -> list[Path]:
    """Return the files of a pattern, by name, without those that a killed process left."""
    return sorted(folder.glob(f"[!.]{pattern}"))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    write_atomically(path, write)


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Create the folder of a result and lock the result for this process.

    The lock is released when the process ends, however it ends. Files that a killed process left
    half-written are removed.

    Args:
      path: the result.
      wait: wait for another process that works on it, instead of raising an error.

    Raises:
      InputError: another process works on it, or the folder or its lock cannot be written to.
    """
    make_folder(path.parent)
    # The umask decides on permissions: in a shared folder the next user may be someone else.
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), mode=0o666)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        raise InputError(
            f"another process is working on {path}: wait for it, then try again"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise InputError(
            f"{lock.lock_file} cannot be locked ({getattr(error, 'strerror', None) or error}): it "
            "may belong to another user; choose your own folder"
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
      InputError: there is no such user, or it is not a valid path.
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
                f"{str(path)[:60]}…: a path of {len(str(path))} characters is too long for the "
                "system: choose a shorter one"
            ) from None
    if not named:
        raise InputError(
            f"{str(path)[:60]!r} ({type(path).__name__}): expected a path, without NUL characters"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{path}: no user has this home folder; use ./{path} for a folder of this name"
        ) from None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], **notes: Any) -> None:
    """Write arrays, and `notes` as JSON text, to an `.npz` file atomically."""
    texts = {name: np.array(json.dumps(note)) for name, note in notes.items()}
    everything: dict[str, Any] = {**arrays, **texts}

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in everything.items():
                # As NumPy's savez does, except for the date: zip files hold none before 1980,
                # which a clock may well show.
                entry = zipfile.ZipInfo(f"{name}.npy", _ANY_DATE)
                with archive.open(entry, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asanyarray(content), allow_pickle=False)

    write_atomically(path, write)


@contextlib.contextmanager
def opened_arrays(path: Path) -> Iterator[Any]:
    """Open an `.npz` file without pickles, as an `NpzFile`; damage raises errors of many kinds."""
    # NumPy leaves a damaged file open that it has opened itself.
    with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
        yield file


@contextlib.contextmanager
def open_arrays(path: Path, *, what: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Open an `.npz` file, and report errors while it is read in one line.

    Args:
      path: the file.
      what: its content, for the error.

    Raises:
      InputError: the file is truncated, or contains something other than `what`.
    """
    path = expanded(path)
    try:
        with opened_arrays(path) as file:
            for member in file.zip.infolist():
                if member.compress_type or member.flag_bits & 1:
                    raise InputError("expected arrays that are neither compressed nor encrypted")
            yield file
    except Exception as error:  # zipfile and NumPy raise errors of many kinds for damaged files
        text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path} is truncated or not a valid {what} ({' '.join(text.split())[:200]}): move it "
            "away to compute it again"
        ) from error


def read_array(
    file: np.lib.npyio.NpzFile, name: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...]
) -> np.ndarray:
    """Read an array of this dtype and shape (None: any length) that `write_arrays` wrote.

    Raises:
      InputError: dtype or shape differ; `open_arrays` adds the file.
    """
    found = file[name]
    if found.dtype != np.dtype(dtype) or not fits(found.shape, shape):
        lengths = ", ".join("n" if length is None else str(length) for length in shape)
        raise InputError(
            f"{name} is {found.dtype} {list(found.shape)}; expected {np.dtype(dtype)} [{lengths}]"
        )
    return found


def read_note(file: np.lib.npyio.NpzFile, name: str, kind: Any = dict[str, Any]) -> Any:
    """Read a note that `write_arrays` wrote as a type; see `decoding.from_json`."""
    text = file[name]
    if text.shape or text.dtype.kind != "U":
        raise ValueError(f"the note {name} is not text")
    return from_json(str(text), kind, source=f"the note {name}")


def write_json(path: Path, value: Any) -> None:
    """Write plain data as indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def as_json_data(value: Any) -> Any:
    """Return a value as JSON gives it back (tuples become lists), to compare with stored JSON."""
    return json.loads(json.dumps(value))
