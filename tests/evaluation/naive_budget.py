"""The images that get the runs of a budget, counted one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def allowance(
    broke: np.ndarray,
    losses: np.ndarray,
    costs: Sequence[int],
    *,
    budget: int,
    ends: tuple[int, int, int],
) -> np.ndarray:
    """Return the runs that each image may have, counted from the outcomes of all runs.

    Args:
      broke: the run that breaks each image, beyond the last one where none does.
      losses: of every run of every image, [n, runs].
      costs: of each run.
      budget: gradients an image, on average.
      ends: the number of runs after the first phases, and after each of the two on the closest.
    """
    first, second, last = ends
    left = budget * len(broke) - sum(sum(costs[: min(int(b) + 1, first)]) for b in broke)
    allowed = np.full(len(broke), first)
    closest = np.argsort(-losses[:, :first].max(axis=1), kind="stable")
    going_on = [int(i) for i in closest if broke[i] >= first]
    for begin, end in ((first, second), (second, last)):
        chosen = []
        for i in going_on:
            if sum(costs[begin:end]) > left:
                break
            left -= sum(costs[begin : min(int(broke[i]) + 1, end)])
            allowed[i] = end
            chosen.append(i)
        going_on = [i for i in chosen if broke[i] >= end]
    return allowed
