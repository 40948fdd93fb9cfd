"""The runs folder: where a model, its log and its results lie, how they are written and checked.

    runs/<scale>/<dataset>/<row>/
      model.keras            the trained weights (raw, not averaged)
      averages.keras         their moving average, where the recipe keeps one
      settings.json          the recipe that this folder belongs to
      recipe.json            the recipe, its provenance and the hash of the weights
      training.csv           one line an epoch
      backup/                the state of an unfinished training
      attacks/<attack>.npz   one result per attack (see `restarts.AttackRecord`)

Every file is written under a temporary name and renamed. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import keras
import numpy as np

from alp_repro.errors import InputError


@dataclasses.dataclass(frozen=True)
class RunDir:
    """The folder of one trained model; `path` may not exist yet."""

    path: Path

    @property
    def model(self) -> Path:
        """Raw weights and architecture."""
        return self.path / "model.keras"

    @property
    def averages(self) -> Path:
        """Moving average of the weights."""
        return self.path / "averages.keras"

    @property
    def recipe(self) -> Path:
        """Recipe and provenance of the training."""
        return self.path / "recipe.json"

    @property
    def settings(self) -> Path:
        """The settings that the folder belongs to, there from the first moment."""
        return self.path / "settings.json"

    @property
    def log(self) -> Path:
        """Losses and accuracies by epoch."""
        return self.path / "training.csv"

    @property
    def backup(self) -> Path:
        """State of an unfinished training."""
        return self.path / "backup"

    @property
    def attacks(self) -> Path:
        """Results of attacks."""
        return self.path / "attacks"

    @property
    def finished(self) -> bool:
        """Whether the model is trained."""
        return self.model.exists() and self.recipe.exists()

    def make(self) -> None:
        """Creates the folder; InputError where that is not allowed."""
        make_folder(self.path)


def make_folder(path: Path) -> None:
    """Creates a folder and its parents, and checks that files can be written to it.

    Raises:
      InputError: it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}"
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
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, atomically."""

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    write_atomically(path, write)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Makes the folder of a result and lets one process at a time work on the result.

    The lock goes with the process, however it ends; what a killed one left half-written is removed.

    Raises:
      InputError: another process works on it, or the folder cannot be written to.
    """
    make_folder(path.parent)
    try:
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            for temporary in path.parent.glob(f".*.{glob.escape(path.name)}"):
                temporary.unlink(missing_ok=True)
            yield
    except filelock.Timeout:
        raise InputError(
            f"{path} is being worked on by another process: wait for it, then ask again"
        ) from None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], **notes: Any) -> None:
    """Writes arrays, and notes as JSON text beside them, to an `.npz` file, atomically."""
    texts = {name: np.array(json.dumps(note)) for name, note in notes.items()}
    everything: dict[str, Any] = {**arrays, **texts}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **everything)

    write_atomically(path, write)


@contextlib.contextmanager
def reading_arrays(path: Path, *, what: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens an `.npz` file; whatever does not fit while it is read becomes one line.

    Raises:
      InputError: the file is truncated or holds something other than `what`.
    """
    try:
        with np.load(path) as file:
            yield file
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is truncated or no {what} ({type(error).__name__}: {error}): move it away to "
            "have it computed again"
        ) from error


def note(file: np.lib.npyio.NpzFile, name: str) -> Any:
    """A note that `write_arrays` wrote."""
    return json.loads(str(file[name]))


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def plain(value: Any) -> Any:
    """A value as JSON gives it back (tuples become lists), for comparing with what was read."""
    return json.loads(json.dumps(value))


def read_json(path: Path) -> Any:
    """Reads JSON; InputError when the file is absent or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} is not there") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it to have it made again") from error


def save_model(path: Path, model: keras.Model) -> None:
    """Writes architecture and weights as a `.keras` file, atomically."""
    write_atomically(path, lambda file: model.save(file))


def load_model(path: Path) -> keras.Model:
    """Reads a `.keras` file; nothing in it is executed or unpickled.

    Raises:
      InputError: the file is absent, truncated, or no Keras model.
    """
    if not path.exists():
        raise InputError(f"{path} is not there: train the model first")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is truncated or no .keras file: remove it and train again")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises errors of many kinds for a damaged or foreign file
        raise InputError(f"{path} holds no Keras model that can be read ({error})") from error


def weights_hash(model: keras.Model) -> str:
    """Sixteen hex digits that change with any weight, its shape or its place."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.shape}{weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]


def provenance() -> dict[str, Any]:
    """When, with what code and on what machine a result was made; plain data."""
    packages = ("tensorflow", "keras", "cleverhans", "numpy")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "revision": code_revision(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def code_revision() -> str:
    """Git revision of the code that runs, with `+changes` when it differs; else the version."""
    folder = Path(__file__).resolve().parent
    git = ["git", "-C", str(folder)]
    try:
        # A package installed inside another project's checkout is not that project's revision.
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", __file__], check=True, capture_output=True
        )
        revision = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return f"alp_repro {package_version()}"
    return revision + ("+changes" if changed else "")


def package_version() -> str:
    """Version of the installed package."""
    try:
        return importlib.metadata.version("alp_repro")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
