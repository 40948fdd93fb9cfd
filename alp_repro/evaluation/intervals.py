"""How sure a share of some images is."""

from __future__ import annotations

import functools


@functools.lru_cache(maxsize=4096)
def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927, without continuity correction)."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no proportion")
    from scipy.stats import binomtest  # half a second that few callers need

    low, high = binomtest(successes, trials).proportion_ci(method="wilson")
    # At the ends the bound is 0 or 1 exactly; rounding must not push it across.
    low = 0.0 if successes == 0 else max(0.0, float(low))
    return low, 1.0 if successes == trials else min(1.0, float(high))
