"""The sanity checks of Carlini et al. 2019, "On evaluating adversarial robustness", section 5.

What every evaluation that means what it says fulfils, whatever the model: a larger ball leaves
fewer images and the largest none, many steps break no fewer than one, chance finds nothing that
the attack misses, and no two results contradict each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from alp_repro.attacks import PGD, Attack, Ensemble, Square
from alp_repro.auditing import indicators as judge
from alp_repro.auditing import kinds
from alp_repro.auditing.kinds import Indicator
from alp_repro.auditing.looks import left_standing
from alp_repro.auditing.result import AttackResult
from alp_repro.auditing.stages import Stage, default_attack
from alp_repro.auditing.work import Work

GRID_FACTORS = (2, 4)  # of ε, below 1; then 1
NOISE_POINTS = 100
_GRID_IMAGES = 50
_LEFT_OUT = "it was left out"
_KINDS = (kinds.ONE_STEP, kinds.NOISE, kinds.EPS_GRID, kinds.CONTRADICTION)


def with_checks(plan: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return a plan with the attacks that are compared with its first, the one under audit."""
    default, *others = plan
    attack = dataclasses.replace(default.attack, restarts=1)
    eps = attack.eps
    # A query of Square from its first point, stripes of ±ε at random: nothing is followed.
    noise = Square(eps=eps, nb_iter=1, restarts=NOISE_POINTS)
    found = [Stage("noise", f"{NOISE_POINTS} random points", noise)]
    if attack.needs_gradient:
        many = attack if isinstance(attack, PGD) else default_attack(eps)
        one_step = dataclasses.replace(many, eps_iter=eps, nb_iter=1)
        found.append(Stage("one_step", "One step of ε", one_step))
        found.append(Stage("half", "Default in half the ball", scaled(attack, eps / 2)))
    return default, *found, *others


def not_judged(why: str) -> tuple[Indicator, ...]:
    """Return the checks where nothing was attacked."""
    return tuple(kind.not_judged(why) for kind in _KINDS)


def checks(work: Work, found: np.ndarray) -> tuple[Indicator, ...]:
    """Return what the checks say once all attacks are over.

    Args:
      work: with the evaluation under audit done.
      found: int [n], the predictions on what broke each image, -1: nothing did.
    """
    return one_step(work), noise(work), eps_grid(work), contradiction(work, found)


def _named(work: Work, name: str) -> AttackResult | None:
    return next((one for one in work.attacks if one.name == name), None)


def one_step(work: Work) -> Indicator:
    """A single step of ε against the evaluation under audit."""
    found = _named(work, "one_step")
    if found is None:
        return kinds.ONE_STEP.not_judged(_LEFT_OUT)
    default = int(work.attacks[0].broken.sum())
    return judge.one_step_stronger(int(found.broken.sum()), default, len(found.attacked))


def noise(work: Work) -> Indicator:
    """Random points against the evaluation under audit."""
    found = _named(work, "noise")
    if found is None:
        return kinds.NOISE.not_judged(_LEFT_OUT)
    missed = found.broken & ~work.attacks[0].broken
    return judge.noise_stronger(int(missed.sum()), int(found.broken.sum()), len(found.attacked))


def eps_grid(work: Work) -> Indicator:
    """The evaluation under audit in growing balls, up to every image there is."""
    default = work.attacks[0]
    if work.attack.needs_gradient and not default.spent:
        return kinds.EPS_GRID.not_judged("there is no gradient to follow")
    chosen = default.attacked[:_GRID_IMAGES]
    eps = work.attack.eps
    larger = [eps * factor for factor in GRID_FACTORS if eps * factor < 1] + [1.0] * (eps < 1)
    grid = [scaled(work.attack, size) for size in larger]
    cost = sum(attack.gradients for attack in grid)
    if not work.fits("eps_grid", "Balls of other sizes", cost, len(chosen)):
        return kinds.EPS_GRID.not_judged("no time was left")

    def compute() -> list[int]:
        return [left_standing(work, chosen, attack) for attack in grid]

    left = work.once("eps_grid", list[int], compute)
    at_eps = int((~default.broken[: len(chosen)]).sum())
    return judge.eps_grid([eps, *larger], [at_eps, *left], len(chosen))


def scaled(attack: Attack | Ensemble, eps: float) -> Attack | Ensemble:
    """Return the attack in a ball of another size, its steps as large in proportion."""
    if isinstance(attack, Ensemble):
        phases = [dataclasses.replace(p, attack=_scaled(p.attack, eps)) for p in attack.phases]
        return dataclasses.replace(attack, phases=tuple(phases))
    return _scaled(attack, eps)


def _scaled(attack: Attack, eps: float) -> Attack:
    if not isinstance(attack, PGD):
        return dataclasses.replace(attack, eps=eps)
    share = eps / attack.eps
    return dataclasses.replace(attack, eps=eps, eps_iter=min(attack.eps_iter * share, eps))


def contradiction(work: Work, found: np.ndarray) -> Indicator:
    """Results that cannot all be right.

    `found`: int [n], the predictions on what broke each image, -1: nothing did.
    """
    default, pairs = work.attacks[0], []
    for name, weaker, words in (
        ("half", True, "half the ball"),
        ("iterations", False, "a fifth of the iterations"),
    ):
        other = _named(work, name)
        if other is not None:
            more = int(other.broken.sum()) - int(default.broken.sum())
            pairs.append((words, more if weaker else -more, len(default.attacked)))
    again = int((found == work.labels)[work.broken_by >= 0].sum())
    if not pairs and not again:
        return kinds.CONTRADICTION.not_judged(_LEFT_OUT)
    return judge.contradiction(pairs, again)
