"""Interleaved timing on a machine that others use too.

Calls are timed in turns and compared by ratios of medians, in seconds on the clock and in seconds
of processor time: the latter counts what the call's threads did, not what they waited for others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Seconds(NamedTuple):
    """Medians of one call: on the clock, and of all its threads' processor time."""

    wall: float
    cpu: float


def interleaved(calls: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Seconds]:
    """Times each call, after one warm-up, all of them once a round."""
    for call in calls.values():
        call()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Seconds(*np.median(values, axis=0).tolist()) for name, values in seconds.items()}


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
