"""The course of an audit: its stages and looks in their order, and what comes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from alp_repro.auditing import kinds, looks, planted
from alp_repro.auditing.result import Audit
from alp_repro.auditing.stages import Stage, without_gradient
from alp_repro.auditing.work import Work

_OF_ATTACKS = (
    kinds.NO_GRADIENT,
    kinds.ZERO_GRADIENTS,
    kinds.UNSTABLE,
    kinds.FORGOTTEN,
    kinds.INCOMPLETE,
    kinds.UNBOUNDED,
    kinds.RESTARTS,
    kinds.STEP_SIZE,
    kinds.BLACK_BOX,
    kinds.PLANTED,
    kinds.JUDGE,
    kinds.OVERESTIMATE,
)


def not_attacked(work: Work, why: str | None) -> Audit:
    """Return the audit where attacks would mean nothing.

    Args:
      work: with its clean images taken in.
      why: what makes them mean nothing; None: no image is classified correctly, so that it is
        known without attacks that none survives.
    """
    reason = why or "no image is classified correctly"
    found = work.result(tuple(kind.not_judged(reason) for kind in _OF_ATTACKS))
    return dataclasses.replace(found, not_measured=why)


def _why_not_measured(work: Work) -> str | None:
    standing = (work.correct & (work.broken_by < 0)).any()
    if not standing or any(one.spent for one in work.attacks if one.name != "noise"):
        return None
    return (
        "the model has no gradient to follow, and no attack that needs none was run: give more time"
    )


def attacked(work: Work, plan: Sequence[Stage], *, closer_look: bool) -> Audit:
    """Runs everything that fits: the stages, and what the indicators ask for.

    Args:
      work: with some images that are classified correctly.
      plan: the evaluation under audit first.
      closer_look: also heat map, histograms and surface.

    Raises:
      InputError: not even the evaluation under audit fits into the time.
    """
    places = np.flatnonzero(work.correct)
    blind = looks.is_blind(work, places)
    gradients = looks.gradients(work, places, blind=blind)
    features = None if blind else planted.features_of(work.model)
    work.measure_speed(places, blind=blind)
    if blind:
        plan = without_gradient(plan)
    work.tell_plan(plan)
    if plan[0].starts_alone:
        work.run_without_gradient(plan[0])
    else:
        work.run(plan[0])
    found = [*gradients, looks.unbounded(work, places, blind=blind)]
    test = None if features is None else looks.unit_test(work, features, places)
    for stage in plan[1:]:
        work.run(stage)
    if not blind:
        work.further_rounds()
    closer_look = closer_look and not blind
    grid = looks.grid(work, places) if closer_look else None
    found += [
        *looks.way(work, places, blind=blind),
        looks.of_restarts(work, blind=blind),
        looks.of_grid(grid, work, blind=blind),
        looks.black_box(work),
        looks.of_unit_test(test, work, blind=blind),
        looks.overestimate(work),
    ]
    result = work.result(tuple(found))
    return dataclasses.replace(
        result,
        indicators=(*result.indicators, looks.judge_disagrees(work, result.found)),
        not_measured=_why_not_measured(work),
        heat_map=grid,
        planted=test,
        surface=looks.surface(work) if closer_look else None,
        restarts=looks.histograms(work) if closer_look else None,
    )
