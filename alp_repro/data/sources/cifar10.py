"""CIFAR-10 from local files: the official archives, packed or not, or images by class."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from alp_repro.data import store
from alp_repro.data.source_record import SourceRecord
from alp_repro.data.sources import safe_pickle
from alp_repro.data.sources.file_trees import (
    DamagedFile,
    FileTree,
    open_tree,
    require_published,
    root_of,
    verify_unread_files,
)
from alp_repro.data.sources.image_check import ImageChecker, in_turn
from alp_repro.errors import InputError

VERSION = "3.0.2"  # of the TFDS dataset
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_SHAPE = (32, 32, 3)
_RECORD_BYTES = 1 + 3072  # a label, then the red, green and blue planes
_TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST_BATCH = "test_batch"
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

# Published on https://www.cs.toronto.edu/~kriz/cifar.html: size and MD5 of the archives.
BINARY_ARCHIVE = (170_052_171, "c32a1d4ab5d03f1284b67883e8d87530")
PYTHON_ARCHIVE = (170_498_071, "c58f30108f718f92721af3b95e74349a")
# MD5 of the unpacked Python batches; nobody published any of the binary ones.
PYTHON_BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


@dataclass(frozen=True)
class _Arrays:
    images: np.ndarray  # uint8 [n, 32, 32, 3]
    labels: np.ndarray  # int64 [n]


def write_cifar10(data_dir: Path, source: Path, *, skip_corrupt: bool = False) -> SourceRecord:
    """Write CIFAR-10 from a local source as a TFDS dataset into `data_dir`.

    The source is the official binary or Python archive, packed or unpacked, or a folder or zip of
    images at `train/CLASS/*` and `test/CLASS/*`. Official batches keep their order. Images by class
    are ordered by the numbers that their names begin with, if these number a whole split as it was
    published; else they alternate between the classes, by name, so that any first n are balanced.

    Raises:
      InputError: the source is none of these, lacks a batch or a class, or has corrupt images and
        `skip_corrupt` is false.
    """
    with open_tree(source) as tree:
        if (root := root_of(tree, f"{_TEST_BATCH}.bin")) is not None:
            return _write_batches(data_dir, tree, root, binary=True)
        if (root := root_of(tree, _TEST_BATCH)) is not None:
            return _write_batches(data_dir, tree, root, binary=False)
        if (root := root_of(tree, "train")) is not None:
            return _write_images(data_dir, tree, root, skip_corrupt=skip_corrupt)
    raise InputError(
        f"{source} is not CIFAR-10: expected data_batch_1.bin … test_batch.bin (binary archive), "
        "data_batch_1 … test_batch (Python archive), or train/CLASS/* and test/CLASS/*"
    )


def _write_batches(data_dir: Path, tree: FileTree, root: str, *, binary: bool) -> SourceRecord:
    suffix = ".bin" if binary else ""
    expected = [f"{root}{batch}{suffix}" for batch in (*_TRAIN_BATCHES, _TEST_BATCH)]
    missing = sorted(set(expected) - set(tree.names))
    if missing:
        raise InputError(f"{tree.path} lacks the CIFAR-10 batches {', '.join(missing)}")
    kind = _verified_kind(tree, root, binary=binary)
    read = _read_binary if binary else _read_python
    batches = [read(tree, name) for name in expected]
    train = _Arrays(
        np.concatenate([batch.images for batch in batches[:-1]]),
        np.concatenate([batch.labels for batch in batches[:-1]]),
    )
    splits = {"train": train, "test": batches[-1]}
    for split, arrays in splits.items():
        _require_classes(tree, split, set(arrays.labels.tolist()))
    _store(data_dir, {split: _array_examples(split, arrays) for split, arrays in splits.items()})
    return SourceRecord(kind, str(tree.path), verified=kind.startswith("official"))


def _verified_kind(tree: FileTree, root: str, *, binary: bool) -> str:
    """Return the kind of the batches in a few words; InputError if official ones are damaged."""
    name = "binary" if binary else "Python"
    size, md5 = BINARY_ARCHIVE if binary else PYTHON_ARCHIVE
    if require_published(tree, size=size, md5=md5, what=f"official CIFAR-10 {name} archive"):
        return f"official {name} archive"
    if not binary:
        altered = [
            batch
            for batch, published in PYTHON_BATCHES.items()
            if hashlib.md5(_read(tree, root + batch), usedforsecurity=False).hexdigest()
            != published
        ]
        if not altered:
            return "official Python batches"
        if len(altered) < len(PYTHON_BATCHES):  # the user's own batches all differ
            raise InputError(
                f"{root}{altered[0]} in {tree.path} is not the official batch (MD5), although "
                "other batches are: it is damaged; unpack the archive again"
            )
    return f"{name} batches, not verified"


def _read_binary(tree: FileTree, name: str) -> _Arrays:
    content = _read(tree, name)
    if not content or len(content) % _RECORD_BYTES:
        raise InputError(
            f"{name} in {tree.path} has {len(content)} bytes, not a multiple of {_RECORD_BYTES}: "
            "it is truncated or not a CIFAR-10 batch"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD_BYTES)
    return _arrays(tree, name, records[:, 1:], records[:, 0].astype(np.int64))


def _read_python(tree: FileTree, name: str) -> _Arrays:
    pixels, labels = safe_pickle.read_batch(_read(tree, name), name=f"{name} in {tree.path}")
    return _arrays(tree, name, pixels, labels)


def _read(tree: FileTree, name: str) -> bytes:
    try:
        return tree.read(name)
    except DamagedFile as error:
        raise InputError(f"{name} in {tree.path} cannot be read: {error}") from error


def _arrays(tree: FileTree, name: str, pixels: np.ndarray, labels: np.ndarray) -> _Arrays:
    wrong = labels[(labels < 0) | (labels >= len(CLASSES))]
    if wrong.size:
        raise InputError(f"{name} in {tree.path} has the label {wrong[0]}: expected 0 to 9")
    planes = pixels.reshape(-1, 3, 32, 32)
    return _Arrays(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _write_images(data_dir: Path, tree: FileTree, root: str, *, skip_corrupt: bool) -> SourceRecord:
    names = {split: _names_by_class(tree, f"{root}{split}/") for split in ("train", "test")}
    for split, by_class in names.items():
        foreign = sorted(set(by_class) - set(CLASSES))
        if foreign:
            raise InputError(
                f"{root}{split} in {tree.path} has the class folders {', '.join(foreign[:5])}: "
                f"expected the classes of CIFAR-10, {', '.join(CLASSES)}"
            )
        _require_classes(tree, split, {CLASSES.index(name) for name in by_class})
    checker = ImageChecker(tree, _SHAPE)
    found: dict[str, set[int]] = {"train": set(), "test": set()}
    _store(
        data_dir,
        {
            split: _image_examples(split, by_class, checker, found[split])
            for split, by_class in names.items()
        },
    )
    skipped = checker.require_intact(skip_corrupt=skip_corrupt)
    verify_unread_files(tree)
    for split, labels in found.items():
        _require_classes(tree, split, labels)
    suffixes = {
        PurePosixPath(n).suffix.lower() for s in names.values() for c in s.values() for n in c
    }
    encoding = "PNG images by class, not verified"
    if suffixes != {".png"}:
        encoding = "re-encoded JPEG images by class"
    if all(numbered(by_class) for by_class in names.values()):
        encoding += ", in the order of their numbers"
    return SourceRecord(f"{encoding}, {tree.kind}", str(tree.path), skipped)


def _names_by_class(tree: FileTree, prefix: str) -> dict[str, list[str]]:
    by_class: dict[str, list[str]] = {}
    for name in sorted(tree.names):
        if not name.startswith(prefix) or not name.lower().endswith(_IMAGE_SUFFIXES):
            continue
        class_name, _, rest = name[len(prefix) :].partition("/")
        if rest:
            by_class.setdefault(class_name, []).append(name)
    return by_class


def _require_classes(tree: FileTree, split: str, labels: set[int]) -> None:
    missing = [name for label, name in enumerate(CLASSES) if label not in labels]
    if missing:
        raise InputError(
            f"the {split} split in {tree.path} has no images of {', '.join(missing)}: expected all "
            "ten classes of CIFAR-10"
        )


def _array_examples(split: str, arrays: _Arrays) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, (image, label) in enumerate(zip(arrays.images, arrays.labels, strict=True)):
        yield index, _example(split, index, image, int(label))


def _image_examples(
    split: str, by_class: dict[str, list[str]], checker: ImageChecker, found: set[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    names = numbered(by_class) or in_turn(by_class[name] for name in CLASSES)
    for index, _, pixels, label in checker.intact(names):
        found.add(label)
        yield index, _example(split, index, pixels, label)


def numbered(by_class: Mapping[str, list[str]]) -> list[tuple[str, int]] | None:
    """Return (name, label) of the images, ordered by the numbers that the names begin with.

    Returns:
      None if the numbers are not positions in the published split: some image has none, there are
      gaps, or they count class by class.
    """
    named = [(name, label) for label, key in enumerate(CLASSES) for name in by_class[key]]
    digits = [re.match(r"[0-9]{1,9}", PurePosixPath(name).name) for name, _ in named]
    numbers = [int(found[0]) for found in digits if found]
    whole = len(numbers) == len(named) and len(set(numbers)) == len(named)
    if not whole or max(numbers) - min(numbers) != len(named) - 1:
        return None
    ordered = [one for _, one in sorted(zip(numbers, named, strict=True))]
    labels = [label for _, label in ordered]
    return None if labels == sorted(labels) else ordered


def _example(split: str, index: int, image: np.ndarray, label: int) -> dict[str, Any]:
    return {"id": f"{split}_{index:05d}", "image": image, "label": label}


def _store(data_dir: Path, splits: dict[str, store.Examples]) -> None:
    import tensorflow_datasets as tfds

    # The features of TFDS' own CIFAR-10, so that `tfds.load` reads both alike.
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=_SHAPE),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
    )
    store.store_examples(
        data_dir,
        "cifar10",
        VERSION,
        features=features,
        splits=splits,
        description="CIFAR-10, in the order of its source.",
    )
