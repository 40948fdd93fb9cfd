"""What a process spends on a result: for how long, and how much of its processor's time."""

from __future__ import annotations

import time


class Clock:
    """Runs from when it is made; of a cluster it tells what the driver spends."""

    def __init__(self) -> None:
        """Starts."""
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def spent(self) -> dict[str, float]:
        """Seconds until now, by the clock and of the processor (all threads); plain data."""
        return {
            "seconds": round(time.monotonic() - self._wall, 1),
            "cpu_seconds": round(time.process_time() - self._cpu, 1),
        }
