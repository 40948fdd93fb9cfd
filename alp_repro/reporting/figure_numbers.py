"""Numbers of figures that are in no table: local maxima of the loss, and single restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from alp_repro.evaluation import wilson_interval
from alp_repro.evaluation.landscape import local_maxima, maximum_at_image
from alp_repro.reporting.tables import Cell

if TYPE_CHECKING:
    from alp_repro.evaluation.landscape import Surfaces

Measure = Literal["maxima", "some maxima", "many maxima", "maximum at image", "good start"]
MEASURES: dict[int | str, str] = {
    "maxima": "local maxima of the loss around test image 0",
    "some maxima": "images with a local maximum of the loss away from the image",
    "many maxima": "images with at least two local maxima of the loss away from the image",
    "maximum at image": "images that are a local maximum of the loss",
    "good start": "images that some restarts break, but fewer than half of them",
}
COUNTS = ("maxima",)  # numbers of one image, exact; the others are shares of images
MANY = 2


def maxima_around_first(surfaces: Surfaces) -> Cell:
    """Count the local maxima of the first image's surface; exact, so without an interval."""
    count = float(local_maxima(surfaces.losses[0]).sum())
    return Cell(count, count, count, images=1)


def shares_of_maxima(surfaces: Surfaces) -> dict[Measure, Cell]:
    """Return the shares of images by their local maxima, in percent with 95% Wilson intervals."""
    at_image = np.array([maximum_at_image(losses) for losses in surfaces.losses])
    away = np.array([local_maxima(losses).sum() for losses in surfaces.losses]) - at_image
    return {
        "some maxima": _share(away > 0),
        "many maxima": _share(away >= MANY),
        "maximum at image": _share(at_image),
    }


def share_of_good_starts(broken: np.ndarray) -> Cell:
    """Return the share of images that need a good start, in percent with its Wilson interval.

    Args:
      broken: bool [images, restarts].
    """
    share = broken.mean(axis=1)
    return _share((share > 0) & (share < 0.5))


def _share(found: np.ndarray) -> Cell:
    low, high = wilson_interval(int(found.sum()), len(found))
    return Cell(100 * float(found.mean()), 100 * low, 100 * high, images=len(found))
