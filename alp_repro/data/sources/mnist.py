"""MNIST from the four IDX files in which it was published, with checksums."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from alp_repro import shipped
from alp_repro.data import store
from alp_repro.data.source_record import SourceRecord
from alp_repro.errors import InputError

VERSION = "3.0.1"  # of the TFDS dataset
_IDX_UINT8 = 0x08


@dataclass(frozen=True)
class IdxFile:
    """A published file: its array shape and the SHA-256 of its unpacked bytes."""

    name: str
    shape: tuple[int, ...]
    sha256: str


FILES: dict[Literal["train", "test"], tuple[IdxFile, IdxFile]] = {
    "train": (
        IdxFile(
            "train-images-idx3-ubyte",
            (60000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            (60000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
    ),
    "test": (
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            (10000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}


def embedded_folder() -> Path:
    """Return the folder of the files that come with the project, which may not exist."""
    return shipped.folder("mnist")


def shipped_source() -> Path | None:
    """Return the folder of the files that come with the project; None if they were removed."""
    folder = embedded_folder()
    return folder if files_present(folder) else None


def files_present(folder: Path) -> bool:
    """Return whether the folder has any of the four IDX files, packed or not."""
    return any(_find(folder, file) for pair in FILES.values() for file in pair)


def read_split(folder: Path, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Read one split of MNIST from its IDX files, gzipped or not.

    Returns uint8 images [n, 28, 28, 1] and uint8 labels [n], in the published order.

    Raises:
      InputError: a file is missing, truncated or not the published one; the message names it.
    """
    image_file, label_file = FILES[split]
    return _read(folder, image_file)[..., np.newaxis], _read(folder, label_file)


def write_mnist(data_dir: Path, source: Path, *, skip_corrupt: bool = False) -> SourceRecord:
    """Write MNIST from the four IDX files in the folder `source` as a TFDS dataset.

    `skip_corrupt` has no effect, since the files do not have single images that could be skipped.

    Raises:
      InputError: a file is missing, damaged or not the published one.
    """
    import tensorflow_datasets as tfds

    del skip_corrupt
    if not source.is_dir():
        raise InputError(f"source {source} is not a folder with the four MNIST IDX files")
    splits: dict[str, store.Examples] = {}
    for split in FILES:
        pairs = zip(*read_split(source, split), strict=True)
        splits[split] = [
            (index, {"image": image, "label": int(label)})
            for index, (image, label) in enumerate(pairs)
        ]
    store.store_examples(
        data_dir,
        "mnist",
        VERSION,
        # The features of TFDS' own MNIST, so that `tfds.load` reads both alike.
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        splits=splits,
        description="The MNIST database of handwritten digits, in the published order.",
    )
    kind = "embedded IDX files" if source == embedded_folder() else "local IDX files"
    return SourceRecord(kind, str(source), verified=True)


def _find(folder: Path, file: IdxFile) -> Path | None:
    candidates = (folder / f"{file.name}.gz", folder / file.name)
    return next((path for path in candidates if path.is_file()), None)


def _read(folder: Path, file: IdxFile) -> np.ndarray:
    path = _find(folder, file)
    if path is None:
        raise InputError(
            f"MNIST file {file.name}.gz is missing in {folder}: expected all four IDX files"
        )
    try:
        packed = path.read_bytes()
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"MNIST file {path} cannot be unpacked ({error}): it is truncated or not a gzip file"
        ) from error
    header = bytes([0, 0, _IDX_UINT8, len(file.shape)])
    header += b"".join(size.to_bytes(4, "big") for size in file.shape)
    expected_bytes = len(header) + int(np.prod(file.shape))
    if len(content) != expected_bytes:
        raise InputError(
            f"MNIST file {path} has {len(content)} bytes unpacked, expected {expected_bytes}: it "
            "is truncated or another file"
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise InputError(
            f"MNIST file {path} has the wrong checksum: SHA-256 of the unpacked content is "
            f"{digest}, expected {file.sha256}"
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(file.shape)
