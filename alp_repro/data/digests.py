"""Stored digests of a prepared dataset's evaluation images, for comparisons without reading images.

They are written when the whole test split is read, and are valid while the dataset's files have the
checksums in `source_record`; a dataset without checksums has no stored digests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from alp_repro import files
from alp_repro.data import source_record
from alp_repro.data.images import images_digest, unit_scale
from alp_repro.errors import InputError
from alp_repro.validation.decoding import read_json

_FILE = "alp_repro_digests.json"


@dataclasses.dataclass(frozen=True)
class Digests:
    """The digests of a test split, which results on its images contain.

    Attributes:
      dataset: identity of the dataset (`source_record.identity`).
      images: the number of images in the split.
      whole: `images_digest` of all of them, in the published order.
      first: `images_digest` of the first 1, 2, … of the paper's evaluation images.
    """

    dataset: str
    images: int
    whole: str
    first: tuple[str, ...]


def load(folder: Path, *, split: str) -> Digests | None:
    """Return the stored digests of a dataset; None if there are no valid ones.

    Args:
      folder: of the dataset.
      split: the test split's name.

    Raises:
      InputError: the files of the split have changed since they were written.
    """
    found = _read(folder, source_record.identity(folder))
    if found is not None:
        source_record.verify_checksums(folder, split=split)
    return found


def save(folder: Path, images: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> None:
    """Store the digests of a test split in its dataset's folder, if that is possible.

    Args:
      folder: of the dataset.
      images: uint8 [n, height, width, channels], all of the split.
      labels: int32 [n].
      indices: int [count], the evaluation images in the order of the draw.
    """
    dataset = source_record.identity(folder)
    if dataset is None or _read(folder, dataset) is not None:
        return
    whole = images_digest(unit_scale(images), labels)
    found = Digests(dataset, len(labels), whole, _of_beginnings(images[indices], labels[indices]))
    with contextlib.suppress(InputError):  # a shared folder may be read-only
        files.write_json(folder / _FILE, dataclasses.asdict(found))


def _read(folder: Path, dataset: str | None) -> Digests | None:
    if dataset is None or not (folder / _FILE).exists():
        return None
    try:
        found = read_json(folder / _FILE, Digests)
    except InputError:  # the next reader writes them again
        return None
    return found if found.dataset == dataset else None


def _of_beginnings(images: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    """Return `images_digest` of the first image, the first two, …"""
    so_far, found = hashlib.sha256(), []
    for count, image in enumerate(unit_scale(images), 1):
        so_far.update(np.ascontiguousarray(image).data)
        with_labels = so_far.copy()
        with_labels.update(labels[:count].astype(np.int32).tobytes())
        found.append(with_labels.hexdigest()[:16])
    return tuple(found)
