"""Where prepared TFDS datasets lie, and how one gets there whole or not at all.

A dataset is written into a temporary folder inside the data directory and renamed into its place
when it is complete, with a small JSON file that records which source it was made from. A process
that is killed on the way leaves nothing that a reader would take for a dataset.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from alp_repro import shipped
from alp_repro.errors import InputError

DATA_DIR_VARIABLE = "ALP_REPRO_DATA_DIR"
_RECORD_FILE = "alp_repro_source.json"
Examples = Iterable[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class SourceRecord:
    """Which source a TFDS dataset was made from.

    Attributes:
        source: the kind of source in a few words; tables and provenance print it.
        origin: the path or URL that was read.
        skipped: names of the corrupt images that were left out on request.
    """

    source: str
    origin: str
    skipped: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The source in one line, with the number of images left out."""
        left_out = f" ({len(self.skipped)} corrupt images left out)" if self.skipped else ""
        return f"{self.source}{left_out}"


def default_data_dir() -> Path:
    """The directory of the TFDS datasets when none is given.

    The environment variable ALP_REPRO_DATA_DIR when set; else `.tfds` in the repository when this
    is a checkout; else `$XDG_CACHE_HOME/alp_repro/tfds` (`~/.cache/alp_repro/tfds`). TFDS' own
    `~/tensorflow_datasets` is not the default because TFDS shuffles what it prepares there, and
    the paper's evaluation images are named by their position in the published files.
    """
    from_environment = os.environ.get(DATA_DIR_VARIABLE)
    if from_environment:
        return Path(from_environment).expanduser()
    checkout = shipped.checkout()
    if checkout is not None:
        return checkout / ".tfds"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "alp_repro" / "tfds"


def chosen_data_dir(data_dir: str | Path | None) -> Path:
    """The directory given, or the default one."""
    return Path(data_dir).expanduser() if data_dir else default_data_dir()


def dataset_folder(data_dir: Path, tfds_name: str, version: str) -> Path:
    """The folder of a prepared dataset, where TFDS looks for it."""
    return data_dir / tfds_name / version


def is_prepared(folder: Path) -> bool:
    """Whether a complete dataset lies in the folder (TFDS writes dataset_info.json last)."""
    return (folder / "dataset_info.json").is_file()


def read_record(folder: Path) -> SourceRecord:
    """The record of the source beside a prepared dataset.

    A dataset without one was prepared by TFDS itself, for another program.
    """
    path = folder / _RECORD_FILE
    if not path.is_file():
        return SourceRecord("prepared elsewhere by TFDS", str(folder))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return SourceRecord(content["source"], content["origin"], tuple(content["skipped"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a source record ({error}): remove the folder {folder} to prepare the "
            "dataset again"
        ) from error


def prepare(
    data_dir: Path,
    tfds_name: str,
    version: str,
    *,
    write: Callable[[Path], SourceRecord],
    overwrite: bool = False,
) -> SourceRecord:
    """Put a dataset into the data directory, whole or not at all.

    `write(folder)` makes the TFDS dataset under a temporary data directory and returns the record
    of its source. When another process prepares the same dataset this one waits for it and uses
    what it made. With `overwrite`, a dataset that is already there is replaced.

    Raises InputError when the data directory cannot be written to.
    """
    final = dataset_folder(data_dir, tfds_name, version)
    _require_writable(data_dir)
    with _locked(data_dir, tfds_name):
        if is_prepared(final) and not overwrite:
            return read_record(final)
        prefix = f".preparing-{tfds_name}-"
        # Nobody else holds the lock, so whatever carries the prefix was left by a killed process.
        for leftover in data_dir.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=data_dir))
        try:
            record = write(temporary)
            written = dataset_folder(temporary, tfds_name, version)
            _write_record(written / _RECORD_FILE, record)
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():
                final.rename(temporary / "replaced")
            written.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return record


def store_examples(
    data_dir: Path,
    tfds_name: str,
    version: str,
    *,
    features: tfds.features.FeaturesDict,
    splits: Mapping[str, Examples],
    description: str,
) -> None:
    """Write splits of (key, example) pairs as a TFDS dataset that keeps their order."""
    with quiet_tfds():
        tfds.dataset_builders.store_as_tfds_dataset(
            name=tfds_name,
            version=version,
            features=features,
            split_datasets=splits,
            data_dir=data_dir,
            description=description,
            disable_shuffling=True,
        )


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Silence TFDS' notes on stdout and in the log; its progress bars are for terminals."""
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


def _write_record(path: Path, record: SourceRecord) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    path.write_text(
        json.dumps({**asdict(record), "prepared": now}, indent=2) + "\n", encoding="utf-8"
    )


def _require_writable(data_dir: Path) -> None:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise InputError(
            f"data directory {data_dir} cannot be written to ({error.strerror or error}): choose "
            f"another with --data_dir or the environment variable {DATA_DIR_VARIABLE}"
        ) from error


@contextlib.contextmanager
def _locked(data_dir: Path, tfds_name: str) -> Iterator[None]:
    # The kernel drops the lock of a killed process, so a lock file that stays behind is harmless.
    with open(data_dir / f".{tfds_name}.lock", "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
