"""The TFDS builder of Tiny ImageNet, which TFDS does not have; importing this registers it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from alp_repro.data.source_record import SourceRecord, hex_digest
from alp_repro.data.sources import tiny_imagenet
from alp_repro.data.sources.file_trees import open_tree, verify_unread_files
from alp_repro.data.sources.image_check import ImageChecker
from alp_repro.errors import InputError


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """TFDS builder: from a local zip or folder, or from the official zip by download.

    `source` is a zip or folder in the official layout, a subset of the images allowed; without it
    the official zip is downloaded and its MD5 checked. Preparing sets `record` and raises
    InputError when the source is not Tiny ImageNet, or holds corrupt images and `skip_corrupt` is
    false. The JPEG bytes are kept as they are.
    """

    VERSION = tfds.core.Version(tiny_imagenet.VERSION)
    RELEASE_NOTES = {tiny_imagenet.VERSION: "First release."}  # noqa: RUF012 (TFDS wants a plain dict)

    def __init__(
        self, *, source: str | Path | None = None, skip_corrupt: bool = False, **kwargs: Any
    ) -> None:
        self._source = Path(source) if source is not None else None
        self._skip_corrupt = skip_corrupt
        self._listing: tiny_imagenet.Listing | None = None
        self._checker: ImageChecker | None = None
        self.record: SourceRecord | None = None
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="200 ImageNet classes at 64×64 pixels, from Stanford's course CS231n.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=tiny_imagenet.SHAPE, encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=tiny_imagenet.NUM_CLASSES),
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
        path = self._source or _verified(Path(dl_manager.download(tiny_imagenet.URL)))
        with open_tree(path) as tree:
            self._listing = tiny_imagenet.list_images(tree)
            self._checker = ImageChecker(tree, tiny_imagenet.SHAPE)
            super()._download_and_prepare(dl_manager, download_config)
            skipped = self._checker.require_intact(skip_corrupt=self._skip_corrupt)
            verify_unread_files(tree)
            kind = tiny_imagenet.kind_of(tree, self._listing)
            verified = kind == tiny_imagenet.OFFICIAL and not skipped
            self.record = SourceRecord(kind, str(tree.path), skipped, verified)

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
        for index, encoded, _, label in self._checker.intact(images):
            yield index, {"image": io.BytesIO(encoded), "label": label}


def _verified(path: Path) -> Path:
    if (digest := hex_digest(path, "md5")) != tiny_imagenet.ZIP_MD5:
        raise InputError(
            f"the download {path} of {tiny_imagenet.URL} has the MD5 {digest}, expected "
            f"{tiny_imagenet.ZIP_MD5}: remove it and try again"
        )
    return path
