"""Extrapolates adversarial accuracy to more restarts, from when images broke so far."""

from __future__ import annotations

import numpy as np

# The least number of images broken after the first restart that allows extrapolation.
FEWEST_BREAKS = 20


def expected_standing(
    first_break: np.ndarray, *, reached: int, restarts: int
) -> tuple[float, float] | None:
    """Estimate the share of images that survives more restarts, by two fits.

    Each image has a probability to break that is the same at every restart; over images, these are
    beta-distributed, in the second fit together with a share of images that never break. Both are
    fitted by maximum likelihood.

    Args:
      first_break: int [n], the restart that broke an image, from 0; negative: none so far.
      reached: the restarts that unbroken images have had.
      restarts: to extrapolate to.

    Returns:
      The lower and the higher of the two shares; None if too few images broke after the first
      restart.
    """
    if int((first_break > 0).sum()) < FEWEST_BREAKS or not (first_break < 0).any():
        return None
    from scipy.optimize import minimize  # half a second that few callers need
    from scipy.special import betaln, expit

    broke = first_break[first_break >= 0].astype(float)
    standing = int((first_break < 0).sum())

    def stands(count: float, a: float, b: float) -> float:
        return float(betaln(a, b + count) - betaln(a, b))

    def share(x: np.ndarray, count: float) -> float:
        a, b = np.exp(x[:2])
        never = expit(x[2]) if len(x) > 2 else 0.0
        return float(never + (1 - never) * np.exp(stands(count, a, b)))

    def loss(x: np.ndarray) -> float:
        a, b = np.exp(x[:2])
        breaks = betaln(a + 1, b + broke) - betaln(a, b)
        if len(x) > 2:
            breaks = breaks + np.log1p(-expit(x[2]))
        return -float(breaks.sum() + standing * np.log(share(x, reached)))

    found = [
        share(minimize(loss, start, method="Nelder-Mead", options={"maxiter": 4000}).x, restarts)
        for start in ([0.0, 0.0], [0.0, 0.0, -3.0])
    ]
    return min(found), max(found)
