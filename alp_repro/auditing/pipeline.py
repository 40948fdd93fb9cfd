"""The pipeline of an audit: its phases and checks in order, and the audit that they end in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from alp_repro.attacks import Phase
from alp_repro.auditing import checks, planted, sanity, specs
from alp_repro.auditing.audit_run import AuditRun
from alp_repro.auditing.plan import without_gradient
from alp_repro.auditing.result import Audit

_NEED_ATTACKS = (
    specs.NO_GRADIENT,
    specs.ZERO_GRADIENTS,
    specs.UNSTABLE,
    specs.FORGOTTEN,
    specs.INCOMPLETE,
    specs.UNBOUNDED,
    specs.RESTARTS,
    specs.STEP_SIZE,
    specs.BLACK_BOX,
    specs.PLANTED,
    specs.JUDGE,
    specs.OVERESTIMATE,
    specs.ONE_STEP,
    specs.NOISE,
    specs.EPS_GRID,
    specs.CONTRADICTION,
)


def without_attacks(run: AuditRun, why: str | None) -> Audit:
    """Return the audit of a model that is not attacked.

    Args:
      run: before any attack.
      why: attacks would mean nothing; None: no image is classified correctly, so that it is known
        without attacks that none survives.
    """
    reason = why or "no image is classified correctly"
    found = run.result(tuple(spec.not_judged(reason) for spec in _NEED_ATTACKS))
    return dataclasses.replace(found, not_measured=why)


def with_attacks(run: AuditRun, phases: Sequence[Phase], *, closer_look: bool) -> Audit:
    """Run the phases and checks that fit into the time, and return the audit.

    Args:
      run: with some images that are classified correctly.
      phases: the evaluation under audit first.
      closer_look: also make the heat map, the histograms and the surface.

    Raises:
      InputError: not even the evaluation under audit fits into the time.
    """
    gradients = checks.gradients(run)
    features = planted.features_of(run.model.white_box) if run.has_gradient else None
    run.measure_speed()
    if not run.has_gradient:
        phases = without_gradient(phases)
    run.check_time(phases)
    run.run(phases[0])
    unbounded = checks.unbounded(run)
    unit_test = None if features is None else checks.unit_test(run, features)
    for phase in phases[1:]:
        run.run(phase)
    if run.has_gradient:
        run.run_further_rounds()
    closer_look = closer_look and run.has_gradient
    grid = checks.grid(run) if closer_look else None
    surface = checks.surface(run) if closer_look else None
    histograms = checks.histograms(run) if closer_look else None
    result = run.result(())
    indicators = (
        *gradients,
        unbounded,
        *checks.trajectory(run),
        checks.restarts(run),
        checks.step_size(run, grid),
        checks.black_box(run),
        checks.planted_examples(run, unit_test),
        checks.overestimate(run),
        checks.judge_disagrees(run, result.found),
        *sanity.checks(run, result.found),
    )
    return dataclasses.replace(
        result,
        indicators=indicators,
        left_out=tuple(run.left_out),
        not_measured=_why_not_measured(run),
        heat_map=grid,
        planted=unit_test,
        surface=surface,
        restarts=histograms,
    )


def _why_not_measured(run: AuditRun) -> str | None:
    if not run.standing.any() or any(one.spent for one in run.attacks if one.name != "noise"):
        return None
    return (
        "the model has no gradient to follow, and no attack that needs none was run: give more time"
    )
