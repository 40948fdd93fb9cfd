"""The images of Tiny ImageNet (tiny-imagenet-200) in its official layout, and their order.

The class indices follow wnids.txt and the validation images val_annotations.txt (protocol, "Tiny
ImageNet"); the official test images have no labels and are left out. The TFDS builder is in
`tiny_imagenet_builder`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from alp_repro.data import store
from alp_repro.data.source_record import SourceRecord
from alp_repro.data.sources.file_trees import DamagedFile, FileTree, require_published, root_of
from alp_repro.data.sources.image_check import in_turn
from alp_repro.errors import InputError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
OFFICIAL = "official zip"
VERSION = "1.0.0"  # of the TFDS dataset
NUM_CLASSES = 200
ZIP_BYTES = 248_100_043
ZIP_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
SHAPE = (64, 64, 3)
_OFFICIAL_IMAGES = {"train": 100_000, "validation": 10_000}
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Listing:
    """The images of a source: file names with their labels, in the order to be written."""

    wnids: tuple[str, ...]
    class_names: tuple[str, ...]
    images: dict[str, list[tuple[str, int]]]  # by split


def write_tiny_imagenet(
    data_dir: Path, source: Path, *, skip_corrupt: bool = False
) -> SourceRecord:
    """Write Tiny ImageNet from a local zip or folder as a TFDS dataset into `data_dir`.

    Raises:
      InputError: the source is not Tiny ImageNet (wnids.txt, train/, val/), lacks a class or has
        unknown ones, or has corrupt images and `skip_corrupt` is false.
    """
    import tensorflow_datasets as tfds

    from alp_repro.data.sources.tiny_imagenet_builder import TinyImagenet

    builder = TinyImagenet(source=source, skip_corrupt=skip_corrupt, data_dir=data_dir)
    with store.quiet_tfds():
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    assert builder.record is not None
    return builder.record


def kind_of(tree: FileTree, listing: Listing) -> str:
    """Return the kind of a source in a few words, for tables and provenance.

    Raises:
      InputError: it is the official zip, but damaged.
    """
    if require_published(tree, size=ZIP_BYTES, md5=ZIP_MD5, what="official Tiny ImageNet zip"):
        return OFFICIAL
    counts = {split: len(images) for split, images in listing.images.items()}
    if counts == _OFFICIAL_IMAGES:
        return f"{tree.kind} in the official layout, not verified"
    return (
        f"{tree.kind} with a subset: {counts['train']} training, {counts['validation']} "
        "validation images"
    )


def list_images(tree: FileTree) -> Listing:
    """Return the images of a source in the dataset's order; InputError if it is incomplete."""
    root = root_of(tree, "wnids.txt")
    if root is None:
        raise InputError(f"{tree.path} is not Tiny ImageNet: it has no wnids.txt")
    wnids = _wnids(tree, f"{root}wnids.txt")
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    return Listing(
        wnids,
        _class_names(tree, f"{root}words.txt", wnids),
        {
            "train": _train_images(tree, f"{root}train/", labels),
            "validation": _validation_images(tree, f"{root}val/", labels),
        },
    )


def _wnids(tree: FileTree, name: str) -> tuple[str, ...]:
    wnids = tuple(_text(tree, name).split())
    malformed = [wnid for wnid in wnids if not _WNID.fullmatch(wnid)]
    if malformed or len(set(wnids)) != NUM_CLASSES or len(wnids) != NUM_CLASSES:
        found = f"{malformed[0]!r}" if malformed else f"{len(set(wnids))} different ones"
        raise InputError(
            f"{name} in {tree.path}: expected {NUM_CLASSES} different WordNet ids like n02124075, "
            f"got {found}"
        )
    return wnids


def _class_names(tree: FileTree, name: str, wnids: tuple[str, ...]) -> tuple[str, ...]:
    if name not in tree.names:
        raise InputError(f"{name} with the names of the classes is missing in {tree.path}")
    lines = (line.partition("\t") for line in _text(tree, name).splitlines())
    words = {wnid: text.strip() for wnid, _, text in lines}
    if unnamed := [wnid for wnid in wnids if not words.get(wnid)]:
        raise InputError(f"{name} in {tree.path} has no name for {_some(unnamed)}")
    return tuple(words[wnid] for wnid in wnids)


def _train_images(tree: FileTree, prefix: str, labels: dict[str, int]) -> list[tuple[str, int]]:
    """Return all training images, alternating between the classes so any first n are balanced."""
    by_wnid: dict[str, list[str]] = {}
    for name in tree.names:
        if name.startswith(prefix) and name.lower().endswith((".jpeg", ".jpg")):
            by_wnid.setdefault(name[len(prefix) :].partition("/")[0], []).append(name)
    if foreign := sorted(set(by_wnid) - set(labels)):
        raise InputError(f"{prefix} in {tree.path} has {_some(foreign)}, not listed in wnids.txt")
    if missing := sorted(set(labels) - set(by_wnid)):
        raise InputError(f"{prefix} in {tree.path} has no images of the classes {_some(missing)}")
    return in_turn(sorted(by_wnid[wnid], key=_natural) for wnid in labels)


def _validation_images(
    tree: FileTree, prefix: str, labels: dict[str, int]
) -> list[tuple[str, int]]:
    name = f"{prefix}val_annotations.txt"
    if name not in tree.names:
        raise InputError(
            f"{name} with the labels of the validation images is missing in {tree.path}"
        )
    images = []
    for number, line in enumerate(_text(tree, name).splitlines(), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if wnid not in labels:
            raise InputError(
                f"{name} in {tree.path}, line {number}: {wnid!r} is not listed in wnids.txt"
            )
        images.append((f"{prefix}images/{file}", labels[wnid]))
    if not images:
        raise InputError(f"{name} in {tree.path} lists no images")
    return images


def _text(tree: FileTree, name: str) -> str:
    try:
        return tree.read(name).decode("utf-8")
    except (DamagedFile, UnicodeDecodeError) as error:
        raise InputError(f"{name} in {tree.path} cannot be read: {error}") from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def _natural(name: str) -> tuple[int, str]:
    """Return a sort key that puts n01443537_2.JPEG before n01443537_10.JPEG."""
    return len(name), name
