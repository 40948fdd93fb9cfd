"""The source of a prepared dataset, and checksums that show whether its files have changed.

A small JSON file in the dataset's folder has both: the source, and the SHA-256 of every file.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from dataclasses import dataclass
from pathlib import Path

from alp_repro import files
from alp_repro.errors import InputError
from alp_repro.validation.decoding import read_json

_FILE = "alp_repro_source.json"
# Verified sources in records from before the field `verified` existed.
_VERIFIED_BEFORE = (
    *("embedded IDX files", "local IDX files", "official zip"),
    *("official binary archive", "official Python archive", "TFDS download, published order"),
)


@dataclass(frozen=True)
class SourceRecord:
    """The source of a TFDS dataset.

    Attributes:
        source: the kind of source in a few words, for tables and provenance.
        origin: the path or URL that was read.
        skipped: names of the corrupt images that were left out on request.
        verified: these are the official pixels, by a published checksum or TFDS' download.
    """

    source: str
    origin: str
    skipped: tuple[str, ...] = ()
    verified: bool = False

    @property
    def summary(self) -> str:
        """The source in one line, with the number of images left out."""
        left_out = f" ({len(self.skipped)} corrupt images left out)" if self.skipped else ""
        return f"{self.source}{left_out}"


@dataclass(frozen=True)
class _Stored:
    """The JSON file: a SourceRecord, when it was written, checksums; older ones lack the last."""

    source: str
    origin: str
    skipped: tuple[str, ...]
    verified: bool | None = None
    prepared: str = ""
    files: dict[str, str] | None = None


def exists(folder: Path) -> bool:
    """Return whether this project prepared a dataset in this folder."""
    return (folder / _FILE).exists()


def write(folder: Path, record: SourceRecord) -> None:
    """Write the record of a complete dataset, with the checksums of its files."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    checksums = {
        path.relative_to(folder).as_posix(): hex_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    stored = {**dataclasses.asdict(record), "prepared": now, "files": checksums}
    files.write_json(folder / _FILE, stored)


def read(folder: Path) -> SourceRecord:
    """Return the record of a dataset; one without a record was prepared by TFDS elsewhere.

    Raises:
      InputError: the record is damaged.
    """
    if not exists(folder):
        return SourceRecord("prepared elsewhere by TFDS", str(folder))
    stored = _read(folder)
    verified = stored.verified
    if verified is None:
        verified = stored.source in _VERIFIED_BEFORE and not stored.skipped
    return SourceRecord(stored.source, stored.origin, stored.skipped, verified)


def identity(folder: Path) -> str | None:
    """Return an identifier of this preparation of a dataset; None: it has no checksums.

    Raises:
      InputError: the record is damaged.
    """
    if not exists(folder) or _read(folder).files is None:
        return None
    return hex_digest(folder / _FILE)[:16]


def verify_checksums(folder: Path, *, split: str | None = None) -> None:
    """Compare the files with the checksums from when they were written, if there are any.

    Args:
      folder: of the dataset.
      split: check this split's files and the dataset's metadata; None: only the metadata.

    Raises:
      InputError: a file is missing or was altered; the message names it.
    """
    if not exists(folder):
        return
    stored = _read(folder)
    for name, expected in (stored.files or {}).items():
        is_data = "record-" in name  # mnist-test.tfrecord-00000-of-00001
        if is_data and (split is None or f"-{split}." not in name):
            continue
        try:
            if hex_digest(folder / name) == expected:
                continue
            problem = "was altered since it was written"
        except OSError as error:
            problem = "is missing"
            if not isinstance(error, FileNotFoundError):
                problem = f"cannot be read ({error.strerror or error})"
        raise InputError(
            f"{folder / name} {problem}: {remedy(folder)} (it was made from {stored.origin})"
        )


def remedy(folder: Path) -> str:
    """Return advice for a damaged dataset."""
    return f"remove the folder {folder} and prepare the data set again"


def hex_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file in hexadecimal digits."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read(folder: Path) -> _Stored:
    return read_json(folder / _FILE, _Stored, advice=remedy(folder))
