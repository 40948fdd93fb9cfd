"""Images with their labels."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Images:
    """Images of one split with their labels.

    Attributes:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].
        indices: int64 [n], the position of each image in the split, in the published order.
        source: which source made the TFDS dataset, for provenance ("embedded IDX files", …).
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    source: str

    @property
    def unit_scale(self) -> np.ndarray:
        """The images as float32 in [0, 1], a new array [n, height, width, channels]."""
        return unit_scale(self.images)

    @functools.cached_property
    def digest(self) -> str:
        """The `images_digest` of these images, on the [0, 1] scale, and labels."""
        return images_digest(self.unit_scale, self.labels)


def unit_scale(images: np.ndarray) -> np.ndarray:
    """Return images as float32 in [0, 1]: uint8 ones are divided by 255, floats are unchanged."""
    floats = images.astype(np.float32)
    return floats / np.float32(255) if images.dtype == np.uint8 else floats


def images_digest(images: np.ndarray, labels: np.ndarray) -> str:
    """Return 16 hexadecimal digits of SHA-256 over images, float32 in [0, 1], and their labels.

    Results store it to identify their images and labels.
    """
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    digest.update(labels.astype(np.int32).tobytes())
    return digest.hexdigest()[:16]
