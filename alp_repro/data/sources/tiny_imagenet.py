"""Tiny ImageNet (tiny-imagenet-200) as a TFDS dataset builder.

Importing this module registers it, so that `tfds.load("tiny_imagenet", data_dir=…)` works. The
class numbers follow wnids.txt and the validation images val_annotations.txt (protocol, "Tiny
ImageNet"); the official test images have no labels and are left out.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from alp_repro.data import store
from alp_repro.data.sources.file_trees import DamagedFile, FileTree, md5_of_file, open_tree, root_of
from alp_repro.data.sources.image_check import ImageChecker
from alp_repro.data.store import SourceRecord
from alp_repro.errors import InputError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
NUM_CLASSES = 200
_ZIP_BYTES = 248_100_043
_ZIP_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
_SHAPE = (64, 64, 3)
_OFFICIAL_IMAGES = {"train": 100_000, "validation": 10_000}
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class _Listing:
    """The images of a source: file names with their labels, in the order to be written."""

    wnids: tuple[str, ...]
    class_names: tuple[str, ...]
    images: dict[str, list[tuple[str, int]]]  # by split


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """TFDS builder: from a local zip or folder, or from the official zip by download.

    `source` is a zip or folder in the official layout, a subset of the images allowed; without it
    the official zip is downloaded and its MD5 checked. Preparing sets `record` and raises
    InputError when the source is not Tiny ImageNet, or holds corrupt images and `skip_corrupt` is
    false. The JPEG bytes are kept as they are.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS wants a plain dict)

    def __init__(
        self, *, source: str | Path | None = None, skip_corrupt: bool = False, **kwargs: Any
    ) -> None:
        self._source = Path(source) if source is not None else None
        self._skip_corrupt = skip_corrupt
        self._listing: _Listing | None = None
        self._checker: ImageChecker | None = None
        self.record: SourceRecord | None = None
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="200 ImageNet classes at 64×64 pixels, from Stanford's course CS231n.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=_SHAPE, encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=NUM_CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
            # The paper's evaluation images are the first of val_annotations.txt.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: Any = None
    ) -> None:
        path = self._source or _verified(Path(dl_manager.download(URL)))
        with open_tree(path) as tree:
            self._listing = _list_images(tree)
            self._checker = ImageChecker(tree, _SHAPE)
            super()._download_and_prepare(dl_manager, download_config)
            skipped = self._checker.require_whole(skip_corrupt=self._skip_corrupt)
            self.record = SourceRecord(_kind(tree, self._listing), str(tree.path), skipped)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        assert self._listing is not None
        self.info.features["label"].names = self._listing.wnids
        self.info.metadata["class_names"] = list(self._listing.class_names)
        return {
            split: self._generate_examples(images) for split, images in self._listing.images.items()
        }

    def _generate_examples(
        self, images: list[tuple[str, int]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        assert self._checker is not None
        index = 0
        for name, label in images:
            image = self._checker.read(name)
            if image is not None:
                yield index, {"image": io.BytesIO(image[0]), "label": label}
                index += 1
        if index == 0:
            self._checker.require_whole(skip_corrupt=False)


def write_tiny_imagenet(
    data_dir: Path, source: Path, *, skip_corrupt: bool = False
) -> SourceRecord:
    """Write Tiny ImageNet from a local zip or folder as a TFDS dataset into `data_dir`.

    Raises InputError when the source is not Tiny ImageNet (wnids.txt, train/, val/), lacks a class
    or names foreign ones, or holds corrupt images and `skip_corrupt` is false.
    """
    builder = TinyImagenet(source=source, skip_corrupt=skip_corrupt, data_dir=data_dir)
    with store.quiet_tfds():
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    assert builder.record is not None
    return builder.record


def _verified(path: Path) -> Path:
    if (digest := md5_of_file(path)) != _ZIP_MD5:
        raise InputError(
            f"the download {path} of {URL} has the MD5 {digest}, the official zip {_ZIP_MD5}: "
            "remove it and try again"
        )
    return path


def _kind(tree: FileTree, listing: _Listing) -> str:
    official = tree.path.is_file() and tree.path.stat().st_size == _ZIP_BYTES
    if official and md5_of_file(tree.path) == _ZIP_MD5:
        return "official zip"
    counts = {split: len(images) for split, images in listing.images.items()}
    if counts == _OFFICIAL_IMAGES:
        return f"{tree.kind} in the official layout, not verified"
    return (
        f"{tree.kind} with a subset: {counts['train']} training, {counts['validation']} "
        "validation images"
    )


def _list_images(tree: FileTree) -> _Listing:
    root = root_of(tree, "wnids.txt")
    if root is None:
        raise InputError(f"{tree.path} is not Tiny ImageNet: it has no wnids.txt")
    wnids = _wnids(tree, f"{root}wnids.txt")
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    return _Listing(
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
            f"{name} in {tree.path} must list {NUM_CLASSES} different WordNet ids like n02124075; "
            f"it has {found}"
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
    """All training images, one of each class in turn, so that any first n are balanced."""
    by_wnid: dict[str, list[str]] = {}
    for name in tree.names:
        if name.startswith(prefix) and name.lower().endswith((".jpeg", ".jpg")):
            by_wnid.setdefault(name[len(prefix) :].partition("/")[0], []).append(name)
    if foreign := sorted(set(by_wnid) - set(labels)):
        raise InputError(f"{prefix} in {tree.path} has {_some(foreign)}, not listed in wnids.txt")
    if missing := sorted(set(labels) - set(by_wnid)):
        raise InputError(f"{prefix} in {tree.path} has no images of the classes {_some(missing)}")
    classes = [sorted(by_wnid[wnid], key=_natural) for wnid in labels]
    return [
        (name, label)
        for in_turn in zip_longest(*classes)
        for label, name in enumerate(in_turn)
        if name is not None
    ]


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
    """Sort key that puts n01443537_2.JPEG before n01443537_10.JPEG."""
    return len(name), name
