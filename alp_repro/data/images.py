"""Images with their labels, as every stage hands them on."""

from __future__ import annotations

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
