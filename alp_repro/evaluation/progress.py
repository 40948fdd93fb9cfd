"""The progress bar of an evaluation, in a notebook or on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from alp_repro.attacks.base import Attack
    from alp_repro.attacks.phases import Ensemble
    from alp_repro.evaluation.restarts import Progress


def is_interactive() -> bool:
    """Return whether this runs in a notebook or on a terminal."""
    return "ipykernel" in sys.modules or sys.stderr.isatty()


@contextlib.contextmanager
def progress_bar(
    attack: Attack | Ensemble, *, shown: bool | None, report: Callable[[Progress], None] | None
) -> Iterator[Callable[[Progress], None]]:
    """Yield the function to call after each batch: it calls `report` and moves a progress bar.

    Args:
      attack: names the bar.
      shown: show a bar; None: in a notebook or on a terminal, unless there is a report.
      report: the caller's own function, if any.
    """
    if not (report is None and is_interactive() if shown is None else shown):
        yield report or (lambda progress: None)
        return
    with tqdm(total=attack.restarts, desc=attack.name, unit="restart") as bar:

        def update(progress: Progress) -> None:
            bar.set_postfix_str(f"{progress.standing} of {progress.images} images standing")
            bar.update(progress.restarts_done - bar.n)
            if report is not None:
                report(progress)

        yield update
