"""Decoding images from sources that may have damaged ones, which are named and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np

from alp_repro.data.sources.file_trees import DamagedFile, FileTree
from alp_repro.errors import InputError

_NAMED = 3


def in_turn(classes: Iterable[Sequence[str]]) -> list[tuple[str, int]]:
    """Return (name, label) of images by class, alternating between the classes."""
    return [
        (name, label)
        for names in zip_longest(*classes)
        for label, name in enumerate(names)
        if name is not None
    ]


@dataclass
class ImageChecker:
    """Reads and decodes the images of one source and records which of them are damaged.

    Attributes:
        tree: the files.
        shape: height, width and channels that each image must have.
        damaged: names of the damaged images so far, each with the reason.
        total: images tried so far.
    """

    tree: FileTree
    shape: tuple[int, int, int]
    damaged: dict[str, str] = field(default_factory=dict)
    total: int = 0

    def read(self, name: str) -> tuple[bytes, np.ndarray] | None:
        """Return the encoded bytes and the uint8 pixels of an image; None if it is damaged."""
        import tensorflow as tf

        self.total += 1
        try:
            encoded = self.tree.read(name)
            pixels = tf.io.decode_image(
                encoded, channels=self.shape[-1], expand_animations=False
            ).numpy()
        except DamagedFile as error:
            self.damaged[name] = str(error)
            return None
        except tf.errors.OpError:
            self.damaged[name] = "not a readable JPEG or PNG"
            return None
        if pixels.shape != self.shape:
            size, expected = ("×".join(map(str, shape[:2])) for shape in (pixels.shape, self.shape))
            self.damaged[name] = f"{size} pixels, not {expected}"
            return None
        return encoded, pixels

    def intact(
        self, images: Iterable[tuple[str, int]]
    ) -> Iterator[tuple[int, bytes, np.ndarray, int]]:
        """Yield number, encoded bytes, pixels and label of the (name, label) that can be read.

        Raises:
          InputError: all of them are damaged.
        """
        count = 0
        for name, label in images:
            found = self.read(name)
            if found is not None:
                yield count, *found, label
                count += 1
        if count == 0:
            self.require_intact(skip_corrupt=False)

    def require_intact(self, *, skip_corrupt: bool) -> tuple[str, ...]:
        """Return the names of the damaged images; InputError unless they may be skipped.

        The error counts all of them and names the first few.
        """
        if not self.damaged or skip_corrupt:
            return tuple(self.damaged)
        named = [f"{name} ({reason})" for name, reason in list(self.damaged.items())[:_NAMED]]
        more = ", …" if len(self.damaged) > _NAMED else ""
        raise InputError(
            f"{len(self.damaged)} of {self.total} images in {self.tree.path} are corrupt: "
            f"{', '.join(named)}{more}; use skip_corrupt to leave them out"
        )
