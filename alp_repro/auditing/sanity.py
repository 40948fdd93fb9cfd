"""The sanity checks of Carlini et al. 2019, "On evaluating adversarial robustness", section 5.

What every evaluation that means what it says fulfils, whatever the model: a larger ball leaves
fewer images and the largest none, many steps break no fewer than one, chance finds nothing that
the attack misses, and no two results contradict each other.
"""

from __future__ import annotations

import numpy as np

from alp_repro.auditing import indicators, specs
from alp_repro.auditing.audit_run import AuditRun
from alp_repro.auditing.checks import LEFT_OUT, NO_GRADIENT, NO_TIME, left_standing
from alp_repro.auditing.plan import scaled
from alp_repro.auditing.specs import Indicator

GRID_FACTORS = (2, 4)  # of ε, below 1; then 1
_GRID_IMAGES = 50


def checks(run: AuditRun, found: np.ndarray) -> tuple[Indicator, ...]:
    """Return all sanity checks once the attacks are over.

    Args:
      run: with the evaluation under audit done.
      found: int [n], the predictions on what broke each image, -1: nothing did.
    """
    return one_step(run), noise(run), eps_grid(run), contradiction(run, found)


def one_step(run: AuditRun) -> Indicator:
    """Compare a single step of ε with the evaluation under audit."""
    found = run.named("one_step")
    if found is None:
        return specs.ONE_STEP.not_judged(LEFT_OUT)
    default = int(run.attacks[0].broken.sum())
    return indicators.one_step_stronger(int(found.broken.sum()), default, len(found.attacked))


def noise(run: AuditRun) -> Indicator:
    """Compare random points with the evaluation under audit."""
    found = run.named("noise")
    if found is None:
        return specs.NOISE.not_judged(LEFT_OUT)
    missed = int((found.broken & ~run.attacks[0].broken).sum())
    return indicators.noise_stronger(missed, int(found.broken.sum()), len(found.attacked))


def eps_grid(run: AuditRun) -> Indicator:
    """Check the evaluation under audit in growing balls, up to the one that holds every image."""
    default, eps = run.attacks[0], run.attack.eps
    if run.attack.needs_gradient and not default.spent:
        return specs.EPS_GRID.not_judged(NO_GRADIENT)
    chosen = default.attacked[:_GRID_IMAGES]
    larger = [eps * factor for factor in GRID_FACTORS if eps * factor < 1] + [1.0] * (eps < 1)
    attacks = [scaled(run.attack, size) for size in larger]
    cost = sum(attack.gradients for attack in attacks)
    if not run.fits("eps_grid", "Balls of other sizes", cost, len(chosen)):
        return specs.EPS_GRID.not_judged(NO_TIME)

    def compute() -> list[int]:
        return [left_standing(run, chosen, attack) for attack in attacks]

    left = run.saved.once("eps_grid", list[int], compute)
    at_eps = int((~default.broken[: len(chosen)]).sum())
    return indicators.eps_grid([eps, *larger], [at_eps, *left], len(chosen))


def contradiction(run: AuditRun, found: np.ndarray) -> Indicator:
    """Check for results that cannot all be right.

    `found`: int [n], the predictions on what broke each image, -1: nothing did.
    """
    default, pairs = run.attacks[0], []
    for name, weaker, words in (
        ("half", True, "half the ball"),
        ("iterations", False, "a fifth of the iterations"),
    ):
        other = run.named(name)
        if other is not None:
            more = int(other.broken.sum()) - int(default.broken.sum())
            pairs.append((words, more if weaker else -more, len(default.attacked)))
    again = int((found == run.labels)[run.broken_by >= 0].sum())
    if not pairs and not again:
        return specs.CONTRADICTION.not_judged(LEFT_OUT)
    return indicators.contradiction(pairs, again)
