"""The time that a process spends on a result."""

from __future__ import annotations

import time


class Stopwatch:
    """Measures the time since its creation; on a cluster, that of the driver."""

    def __init__(self) -> None:
        """Start."""
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def spent(self) -> dict[str, float]:
        """Return the seconds until now, of wall-clock and processor time (all threads)."""
        return {
            "seconds": round(time.monotonic() - self._wall, 1),
            "cpu_seconds": round(time.process_time() - self._cpu, 1),
        }
