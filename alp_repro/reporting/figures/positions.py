"""Selects the images of a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alp_repro.data.images import Images
from alp_repro.errors import InputError


def parse_positions(text: str) -> list[int]:
    """Parse positions of images in their split: "0-7" or "0,4,9" or both, each given once.

    Raises:
      InputError: the text has another form.
    """
    spans = [part.strip().partition("-") for part in text.split(",")]
    positions: list[int] = []
    if all(first.isdecimal() and (last.isdecimal() or not dash) for first, dash, last in spans):
        for first, _, last in spans:
            positions += range(int(first), int(last or first) + 1)
    if not positions or len(set(positions)) < len(positions):
        raise InputError(f"images {text!r}: expected positions as in 0-7 or 0,4,9, each once")
    return positions


def pick_images(data: Images, positions: Sequence[int]) -> Images:
    """Return the images at these positions.

    Raises:
      InputError: a position is beyond the last image.
    """
    if max(positions) >= len(data.labels):
        raise InputError(
            f"image {max(positions)}: expected positions from 0 to {len(data.labels) - 1}, as the "
            f"test set has {len(data.labels)} images"
        )
    chosen = np.asarray(positions)
    return Images(
        data.images[chosen], data.labels[chosen], data.indices[chosen], source=data.source
    )
