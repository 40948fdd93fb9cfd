"""Confidence intervals of a proportion."""

from __future__ import annotations

import functools
import math
import statistics

# The half-width of the normal distribution's central 95%. SciPy has it too, but takes half a second
# to import.
NORMAL_95 = statistics.NormalDist().inv_cdf(0.975)


@functools.lru_cache(maxsize=4096)
def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Compute the 95% interval of a proportion (Wilson 1927, without continuity correction)."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    z2 = NORMAL_95**2
    share = successes / trials
    middle = 2 * successes + z2
    width = NORMAL_95 * math.sqrt(z2 + 4 * successes * (1 - share))
    whole = 2 * (trials + z2)
    # At the ends the bound is 0 or 1 exactly; rounding must not push it across.
    low = 0.0 if successes == 0 else max(0.0, (middle - width) / whole)
    high = 1.0 if successes == trials else min(1.0, (middle + width) / whole)
    return low, high
