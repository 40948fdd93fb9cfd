"""Progress of the tasks at hand: one line on a terminal, elsewhere one printed line a minute."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from alp_repro.tasks import Status

LINE_SECONDS = 60.0
_REDRAW_SECONDS = 0.2


class Display:
    """What the tasks tell, each in a few words, and how much is left of all of them."""

    def __init__(self, summary: Callable[[float], str] = lambda _: "") -> None:
        """Shows nothing until a task tells something.

        `summary` stands before what they tell; it is called with the seconds that the longest of
        the tasks at work still has.
        """
        self._summary = summary
        self._told: dict[str, Status] = {}
        self._bar: tqdm | None = None
        self._terminal = sys.stderr.isatty()
        self._last = time.monotonic() if not self._terminal else 0.0

    def __enter__(self) -> Display:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Clears the line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def tell(self, name: str, status: Status) -> None:
        """Notes what a task tells, and shows it when it is time to."""
        self._told[name] = status
        now = time.monotonic()
        if now - self._last < (_REDRAW_SECONDS if self._terminal else LINE_SECONDS):
            return
        self._last = now
        line = "; ".join(f"{name}: {told.text}" for name, told in self._told.items())
        line = f"[{head}] {line}" if (head := self._summary(self._longest_left())) else line
        if not self._terminal:
            print(line, flush=True)
            return
        if self._bar is None:
            self._bar = tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True)
        self._bar.set_description_str(line)

    def _longest_left(self) -> float:
        return max((told.seconds_left or 0.0 for told in self._told.values()), default=0.0)

    def ended(self, name: str) -> None:
        """Forgets a task."""
        self._told.pop(name, None)

    def print(self, text: str) -> None:
        """Prints a line that stays."""
        if self._bar is not None:
            self._bar.clear()
        print(text, flush=True)
        if self._bar is not None:
            self._bar.refresh()


@contextlib.contextmanager
def shown(name: str, tell: Callable[[Status], None] | None) -> Iterator[Callable[[Status], None]]:
    """Where one task tells its progress: what is given, or a display of its own."""
    if tell is not None:
        yield tell
        return
    with Display() as display:
        yield functools.partial(display.tell, name)


def duration(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.1f} minutes"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"
