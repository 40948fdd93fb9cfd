"""The storage of prepared TFDS datasets, which are written completely or not at all.

A dataset is written into a temporary folder inside the data directory and renamed when it is
complete, with the record of its source. A process that is killed before leaves nothing that could
be mistaken for a dataset.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import logging

from alp_repro import files, shipped
from alp_repro.data import source_record
from alp_repro.data.source_record import SourceRecord
from alp_repro.errors import InputError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

DATA_DIR_VARIABLE = "ALP_REPRO_DATA_DIR"
Examples = Iterable[tuple[int, dict[str, Any]]]


def default_data_dir() -> Path:
    """Return the default directory of the TFDS datasets.

    The environment variable ALP_REPRO_DATA_DIR if set; else `.tfds` in the repository if this is a
    checkout; else `$XDG_CACHE_HOME/alp_repro/tfds` (`~/.cache/alp_repro/tfds`). TFDS' own
    `~/tensorflow_datasets` is not the default because TFDS shuffles what it prepares there, and
    the paper identifies its evaluation images by their position in the published files.
    """
    from_environment = os.environ.get(DATA_DIR_VARIABLE)
    if from_environment:
        return files.expanded(from_environment)
    checkout = shipped.checkout()
    if checkout is not None:
        return checkout / ".tfds"
    cache = os.environ.get("XDG_CACHE_HOME") or files.expanded("~/.cache")
    return Path(cache) / "alp_repro" / "tfds"


def resolve_data_dir(data_dir: str | Path | None) -> Path:
    """Return the given directory, with `~` expanded, or the default one."""
    return files.expanded(data_dir) if data_dir else default_data_dir()


def dataset_folder(data_dir: Path, name: str, version: str) -> Path:
    """Return the folder of a prepared dataset, where TFDS looks for it."""
    return data_dir / name / version


def is_prepared(folder: Path) -> bool:
    """Return whether the folder has, or once had, a complete dataset.

    TFDS writes dataset_info.json last. If there is a source record without it, the dataset was
    damaged later: reading it raises an error, instead of preparing it again from other data.

    Raises:
      InputError: the folder cannot be read.
    """
    try:
        return (folder / "dataset_info.json").exists() or source_record.exists(folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read ({error.strerror or error}): choose another data directory, "
            f"data_dir or the environment variable {DATA_DIR_VARIABLE}"
        ) from error


def prepare(
    data_dir: Path,
    name: str,
    version: str,
    *,
    write: Callable[[Path], SourceRecord],
    overwrite: bool = False,
) -> SourceRecord:
    """Put a complete dataset into the data directory, or nothing.

    `write(folder)` makes the TFDS dataset in a temporary data directory and returns the record of
    its source. If another process is preparing the same dataset, this one waits and uses the
    result. With `overwrite`, an existing dataset is replaced.

    Raises:
      InputError: the data directory cannot be written to, or the disk is full.
    """
    final = dataset_folder(data_dir, name, version)
    _require_writable(data_dir)
    with files.exclusive(data_dir / name, wait=True):
        if is_prepared(final) and not overwrite:
            return source_record.read(final)
        with _temporary_folder(data_dir, name) as temporary:
            record = write(temporary)
            written = dataset_folder(temporary, name, version)
            source_record.write(written, record)
            _put_in_place(written, final, aside=temporary / "replaced")
    return record


def store_examples(
    data_dir: Path,
    name: str,
    version: str,
    *,
    features: tfds.features.FeaturesDict,
    splits: Mapping[str, Examples],
    description: str,
) -> None:
    """Write splits of (key, example) pairs as a TFDS dataset that keeps their order."""
    import tensorflow_datasets as tfds

    with quiet_tfds():
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=version,
            features=features,
            split_datasets=splits,
            data_dir=data_dir,
            description=description,
            disable_shuffling=True,
        )


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Silence TFDS on stdout and in the log; show its progress bars only on a terminal."""
    import tensorflow_datasets as tfds

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    on_terminal = sys.stderr.isatty()
    if not on_terminal:
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if not on_terminal:
            tfds.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """Return the first line of an error of TFDS or TensorFlow, whose messages have many lines."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _require_writable(data_dir: Path) -> None:
    try:
        files.make_folder(data_dir)
    except InputError as error:
        raise InputError(
            f"data directory: {error} (data_dir or the environment variable {DATA_DIR_VARIABLE})"
        ) from error


@contextlib.contextmanager
def _temporary_folder(data_dir: Path, name: str) -> Iterator[Path]:
    """Yield a temporary folder that is always removed; a full disk raises InputError."""
    import tensorflow as tf

    prefix = f".preparing-{name}-"
    # This process has the lock, so any folder with the prefix was left by a killed process.
    for leftover in data_dir.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=data_dir))
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    # TFDS raises the writer's error about a full disk as a RuntimeError.
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        raise InputError(
            f"{name} cannot be prepared in {data_dir} ({first_line(error)}): partial files were "
            "removed; free some space or choose another data directory"
        ) from error


def _put_in_place(written: Path, final: Path, *, aside: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        final.rename(aside)
    try:
        written.rename(final)
    except BaseException:
        if aside.exists():
            aside.rename(final)
        raise
