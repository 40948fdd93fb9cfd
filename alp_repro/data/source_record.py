"""What a prepared dataset was made from, and whether its files are still what was written then.

A small JSON file beside the dataset holds both: the source, and the SHA-256 of every file.
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
# Sources that were verified before records said so.
_VERIFIED_BEFORE = (
    *("embedded IDX files", "local IDX files", "official zip"),
    *("official binary archive", "official Python archive", "TFDS download, published order"),
)


@dataclass(frozen=True)
class SourceRecord:
    """Which source a TFDS dataset was made from.

    Attributes:
        source: the kind of source in a few words; tables and provenance print it.
        origin: the path or URL that was read.
        skipped: names of the corrupt images that were left out on request.
        verified: the official pixels, as a published checksum or TFDS' download tells.
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
    """Whether a dataset of ours was completed in this folder."""
    return (folder / _FILE).exists()


def write(folder: Path, record: SourceRecord) -> None:
    """Writes the record of a complete dataset, with the checksums of its files."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    checksums = {
        path.relative_to(folder).as_posix(): hex_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    stored = {**dataclasses.asdict(record), "prepared": now, "files": checksums}
    files.write_json(folder / _FILE, stored)


def read(folder: Path) -> SourceRecord:
    """The record beside a dataset; one without it was prepared by TFDS, for another program.

    Raises InputError when the record is damaged.
    """
    if not exists(folder):
        return SourceRecord("prepared elsewhere by TFDS", str(folder))
    stored = _read(folder)
    verified = stored.verified
    if verified is None:
        verified = stored.source in _VERIFIED_BEFORE and not stored.skipped
    return SourceRecord(stored.source, stored.origin, stored.skipped, verified)


def identity(folder: Path) -> str | None:
    """What tells a dataset from one that was prepared at another time; None: it has no checksums.

    Raises InputError when the record is damaged.
    """
    if not exists(folder) or _read(folder).files is None:
        return None
    return hex_digest(folder / _FILE)[:16]


def require_whole(folder: Path, *, split: str | None = None) -> None:
    """Compares the files with the checksums of when they were written, where there are any.

    Args:
        folder: of the dataset.
        split: compares this split's files and the facts about the dataset; None: the facts alone.

    Raises InputError naming the file that is missing or was altered.
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
    """What to do about a damaged dataset."""
    return f"remove the folder {folder} and prepare the data set again"


def hex_digest(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file in hexadecimal digits."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read(folder: Path) -> _Stored:
    return read_json(folder / _FILE, _Stored, advice=remedy(folder))
