"""The course of an audit: its stages and looks in their order, and what comes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from alp_repro.auditing import kinds, looks, planted
from alp_repro.auditing.kinds import Indicator
from alp_repro.auditing.result import Audit
from alp_repro.auditing.stages import Stage
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


def not_attacked(work: Work, first: Sequence[Indicator]) -> Audit:
    """The audit where attacks would mean nothing."""
    raised = [one.title for one in first if one.raised]
    why = raised[0] if raised else "no image is classified correctly"
    return work.result(tuple(kind.not_judged(why) for kind in _OF_ATTACKS))


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
    work.tell_plan(plan)
    if blind:
        work.run_without_gradient(plan[0])
    else:
        work.run(plan[0])
    found = [*gradients, looks.unbounded(work, places, blind=blind)]
    test = None if features is None else looks.unit_test(work, features, places)
    for stage in plan[1:]:
        if stage.attack.method == "square" or not blind:
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
        looks.of_unit_test(test, blind=blind),
        looks.overestimate(work),
    ]
    result = work.result(tuple(found))
    return dataclasses.replace(
        result,
        indicators=(*result.indicators, looks.judge_disagrees(work, result.found)),
        heat_map=grid,
        planted=test,
        surface=looks.surface(work) if closer_look else None,
        restarts=looks.histograms(work) if closer_look else None,
    )
