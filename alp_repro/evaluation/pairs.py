"""Confidence intervals of the difference of two proportions."""

from __future__ import annotations

import numpy as np

from alp_repro.evaluation.intervals import NORMAL_95


def paired_interval(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Compute the 95% interval of the difference of two proportions of the same images.

    The adjusted Wald interval of Bonett and Price (2012), which depends, like McNemar's test, on
    the images that are counted in only one of the two.

    Args:
      left, right: bool [n], which images are counted.

    Raises:
      ValueError: different numbers of images, or none.
    """
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise ValueError(f"outcomes of shape {left.shape} and {right.shape} cannot be paired")
    count = len(left) + 2
    first = (np.sum(left & ~right) + 1) / count
    second = (np.sum(~left & right) + 1) / count
    distance = first - second
    error = NORMAL_95 * np.sqrt((first + second - distance**2) / count)
    return float(max(distance - error, -1)), float(min(distance + error, 1))


def two_sample_interval(
    share: float, interval: tuple[float, float], other: float, of_other: tuple[float, float]
) -> tuple[float, float]:
    """Compute the interval of the difference of two independent proportions (Newcombe 1998)."""
    (low, high), (other_low, other_high) = interval, of_other
    below = np.hypot(share - low, other_high - other)
    above = np.hypot(high - share, other - other_low)
    return float(share - other - below), float(share - other + above)
