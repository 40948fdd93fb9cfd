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


def someone_watches() -> bool:
    """Whether this runs in a notebook or on a terminal."""
    return "ipykernel" in sys.modules or sys.stderr.isatty()


@contextlib.contextmanager
def progress_bar(
    attack: Attack | Ensemble, *, shown: bool | None, report: Callable[[Progress], None] | None
) -> Iterator[Callable[[Progress], None]]:
    """What to call after each batch: `report`, and a bar of restarts where one is shown.

    Args:
      attack: names the bar.
      shown: None: where someone watches, unless there is a report.
      report: the caller's own.
    """
    if not (report is None and someone_watches() if shown is None else shown):
        yield report or (lambda progress: None)
        return
    with tqdm(total=attack.restarts, desc=attack.name, unit="restart") as bar:

        def tell(progress: Progress) -> None:
            bar.set_postfix_str(f"{progress.standing} of {progress.images} images standing")
            bar.update(progress.restarts_done - bar.n)
            if report is not None:
                report(progress)

        yield tell
