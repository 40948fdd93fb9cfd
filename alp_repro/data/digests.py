"""Digests of a prepared dataset's evaluation images, kept beside it: comparing reads no images.

Whoever reads the whole test split writes them. They hold while the dataset's files are those of
which `source_record` has the checksums; a dataset without checksums keeps none.
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
    """What results of a test split's images carry.

    Attributes:
      dataset: tells the dataset that they are of.
      images: how many the split holds.
      whole: `images_digest` of all of them, in the published order.
      first: of the first 1, 2, … of the paper's evaluation images.
    """

    dataset: str
    images: int
    whole: str
    first: tuple[str, ...]


def kept(folder: Path, *, split: str) -> Digests | None:
    """Return the digests kept beside a dataset; None: there are none that hold.

    Args:
      folder: of the dataset.
      split: the test split's name.

    Raises:
      InputError: the files of the split are not those that were written.
    """
    found = _read(folder, source_record.identity(folder))
    if found is not None:
        source_record.require_whole(folder, split=split)
    return found


def keep(folder: Path, images: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> None:
    """Write the digests of a test split beside its dataset, where that can be.

    Args:
      folder: of the dataset.
      images: uint8 [n, height, width, channels], all of the split.
      labels: int32 [n].
      indices: int [count], the evaluation images in the order in which they are drawn.
    """
    dataset = source_record.identity(folder)
    if dataset is None or _read(folder, dataset) is not None:
        return
    whole = images_digest(unit_scale(images), labels)
    found = Digests(dataset, len(labels), whole, _of_beginnings(images[indices], labels[indices]))
    with contextlib.suppress(InputError):  # a folder that others share may be read only
        files.write_json(folder / _FILE, dataclasses.asdict(found))


def _read(folder: Path, dataset: str | None) -> Digests | None:
    if dataset is None or not (folder / _FILE).exists():
        return None
    try:
        found = read_json(folder / _FILE, Digests)
    except InputError:  # what is written again by the next reader needs no mending
        return None
    return found if found.dataset == dataset else None


def _of_beginnings(images: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    """`images_digest` of the first image, the first two, …"""
    so_far, found = hashlib.sha256(), []
    for count, image in enumerate(unit_scale(images), 1):
        so_far.update(np.ascontiguousarray(image).data)
        with_labels = so_far.copy()
        with_labels.update(labels[:count].astype(np.int32).tobytes())
        found.append(with_labels.hexdigest()[:16])
    return tuple(found)
