"""The scale of a model's pixels: a scale and an offset over images in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alp_repro.errors import InputError


@dataclass(frozen=True)
class PixelScale:
    """A model's pixel is `scale` · pixel + `offset`, with the pixel in [0, 1].

    Attributes:
      name: for people ("0 to 255").
      scale, offset: one number for all channels, or one for each.
    """

    name: str
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    def fits(self, channels: int) -> bool:
        """Return whether images with this many channels can be converted to this scale."""
        return {len(self.scale), len(self.offset)} <= {1, channels}

    @property
    def is_identity(self) -> bool:
        """True if the model takes pixels in [0, 1]."""
        return set(self.scale) == {1.0} and set(self.offset) == {0.0}


UNIT_PIXELS = PixelScale("0 to 1")


def pixel_range(low: float, high: float) -> PixelScale:
    """Return the scale of a model that takes pixels in [low, high], such as (0, 255) or (-1, 1).

    Raises:
      InputError: the two are not finite and ascending.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"pixel range {low:g} to {high:g}: expected finite numbers, low < high")
    return PixelScale(f"{low:g} to {high:g}", (high - low,), (low,))


def standardized_pixels(mean: Sequence[float], deviation: Sequence[float]) -> PixelScale:
    """Return the scale of a model that takes (pixel - mean) / deviation.

    Args:
      mean, deviation: on the [0, 1] scale, one number for all channels or one for each.

    Raises:
      InputError: they have different lengths, are not finite, or a deviation is not positive.
    """
    if len(mean) != len(deviation) or not mean:
        raise InputError(
            f"pixel mean of {len(mean)} and deviation of {len(deviation)} numbers: expected the "
            "same number of each"
        )
    if not all(map(math.isfinite, (*mean, *deviation))) or min(deviation) <= 0:
        raise InputError("pixel mean and deviation: expected finite numbers, deviations above 0")
    words = ", ".join(f"{m:g}" for m in mean), ", ".join(f"{d:g}" for d in deviation)
    return PixelScale(
        f"mean {words[0]} and deviation {words[1]}",
        tuple(1.0 / d for d in deviation),
        tuple(-m / d for m, d in zip(mean, deviation, strict=True)),
    )


def common_pixel_scales(channels: int) -> tuple[PixelScale, ...]:
    """Return the most common pixel scales of published models for this many channels."""
    imagenet = standardized_pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    found = (
        UNIT_PIXELS,
        pixel_range(0, 255),
        pixel_range(-1, 1),
        pixel_range(-0.5, 0.5),
        PixelScale("1 to 0 (inverted)", (-1.0,), (1.0,)),
        imagenet,
    )
    return tuple(scale for scale in found if scale.fits(channels))
