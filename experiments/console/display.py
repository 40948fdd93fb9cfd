"""Progress of running tasks: one updated line on a terminal, elsewhere one line a minute."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tqdm import tqdm

from alp_repro.tasks import Status

if TYPE_CHECKING:
    from alp_repro.evaluation import Progress

LINE_SECONDS = 60.0
_REDRAW_SECONDS = 0.2


class Display:
    """Shows the status of each running task, after a summary of the remaining work."""

    def __init__(self, summary: Callable[[float], str] = lambda _: "") -> None:
        """Create a display that shows nothing until a task reports its status.

        Args:
          summary: called with the most seconds that any running task has left; returns the text
            to show before the tasks' own.
        """
        self._summary = summary
        self._statuses: dict[str, Status] = {}
        self._bar: tqdm | None = None
        self._terminal = sys.stderr.isatty()
        self._last = time.monotonic() if not self._terminal else 0.0

    def __enter__(self) -> Display:
        """Return the display itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def report_status(self, name: str, status: Status) -> None:
        """Store a task's status, and show it if the last one was shown long enough ago."""
        self._statuses[name] = status
        now = time.monotonic()
        if now - self._last < (_REDRAW_SECONDS if self._terminal else LINE_SECONDS):
            return
        self._last = now
        line = "; ".join(f"{name}: {status.text}" for name, status in self._statuses.items())
        line = f"[{head}] {line}" if (head := self._summary(self._longest_left())) else line
        if not self._terminal:
            print(line, flush=True)
            return
        if self._bar is None:
            self._bar = tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True)
        self._bar.set_description_str(line)

    def _longest_left(self) -> float:
        return max((status.seconds_left or 0.0 for status in self._statuses.values()), default=0.0)

    def ended(self, name: str) -> None:
        """Remove a task that has ended."""
        self._statuses.pop(name, None)

    def print(self, text: str) -> None:
        """Print a permanent line."""
        if self._bar is not None:
            self._bar.clear()
        print(text, flush=True)
        if self._bar is not None:
            self._bar.refresh()


@contextlib.contextmanager
def status_callback(
    name: str, report_status: Callable[[Status], None] | None
) -> Iterator[Callable[[Status], None]]:
    """Yield where a task reports its status: `report_status`, or else a new display."""
    if report_status is not None:
        yield report_status
        return
    with Display() as display:
        yield functools.partial(display.report_status, name)


def attack_progress(progress: Progress) -> str:
    """Format the state of an attack in a few words."""
    return (
        f"restart {min(progress.restarts_done + 1, progress.restarts)} of {progress.restarts}, "
        f"{progress.standing} of {progress.images} images unbroken"
    )


def duration(seconds: float) -> str:
    """Format seconds in a suitable unit."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.1f} minutes"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"
