"""Whether an audit passes a bound on the robust accuracy: one answer for every output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from alp_repro.auditing.result import Audit

Outcome = Literal["passed", "below", "not judged"]

_ROUNDING = 1e-9  # of a share in percent: 29 of 100 images are not below 29%


def outcome(audit: Audit, *, fail_below: float | None) -> Outcome:
    """Return whether an audit passes a bound.

    Args:
      audit: one that could not measure robustness is "not judged", whatever the bound.
      fail_below: the least share that must survive, in percent; None: any will do.
    """
    worst = audit.worst_accuracy
    if worst is None:
        return "not judged"
    if fail_below is not None and 100 * worst < fail_below - _ROUNDING:
        return "below"
    return "passed"
