"""The attacks of an audit, from cheap to dear, and their costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from alp_repro.attacks import QUERY_COST, Attack, strong_attack

Scope = Literal["correct", "standing"]

RESTARTS = 10
BLACK_BOX_QUERIES = 1000
# The paper's larger step: 50 of 76.5 on MNIST.
LARGE_STEP = 50 / 76.5
# What tracing and compiling one more program takes, roughly.
COMPILATION_SECONDS = 4.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One attack of an audit.

    Attributes:
      name: short, for files.
      title: what a table calls it.
      attack: its settings.
      scope: `correct`: all images that the model classifies correctly; `standing`: those of them
        that no stage before has broken.
      cost: what an image costs at the most, in gradients, on average; see `passes`.
      seed_offset: added to the audit's seed.
    """

    name: str
    title: str
    attack: Attack
    scope: Scope = "correct"
    cost: float = 0.0
    seed_offset: int = 0


def default_attack(eps: float) -> Attack:
    """The evaluation under audit unless another is given: the paper's default PGD.

    40 steps of ε/30 from one random start: Madry et al. 2018 on MNIST, Table 1's second column.
    """
    return Attack(eps=eps, eps_iter=eps / 30, nb_iter=40)


def attack_stages(default: Attack, *, classes: int) -> tuple[Stage, ...]:
    """All stages in order; `default` is the evaluation under audit."""
    eps = default.eps
    plain = dataclasses.replace(default, restarts=1)
    few = classes < 4  # the targeted DLR needs four logits
    aims = min(classes - 1, 9)
    # One step must stay inside the ball, and more of them must reach its far side.
    large = Attack(eps=eps, eps_iter=eps * LARGE_STEP, nb_iter=100)
    found = [
        Stage("default", "Default: the evaluation under audit", default),
        Stage("steps", "PGD, steps of 0.65 ε", large),
        Stage(
            "iterations",
            "Default with 5 times the iterations",
            dataclasses.replace(plain, nb_iter=5 * default.nb_iter),
        ),
        Stage(
            "restarts",
            f"Default with {max(RESTARTS, default.restarts)} restarts",
            dataclasses.replace(default, restarts=max(RESTARTS, default.restarts)),
        ),
        Stage(
            "apgd_ce",
            "APGD, cross-entropy",
            Attack(eps=eps, eps_iter=eps, nb_iter=100, method="apgd"),
            "standing",
        ),
        Stage(
            "apgd_targeted",
            f"APGD, targeted {'margin' if few else 'DLR'}",
            Attack(
                eps=eps,
                eps_iter=eps,
                nb_iter=100,
                method="apgd",
                restarts=aims,
                loss="margin" if few else "dlr",
                target="each",
            ),
            "standing",
        ),
        Stage(
            "square",
            f"Square, black box, {BLACK_BOX_QUERIES} queries",
            Attack(
                eps=eps, eps_iter=eps, nb_iter=BLACK_BOX_QUERIES, method="square", loss="margin"
            ),
            "standing",
        ),
        # After the black box, whose part is to tell of gradients: it has a search of its own.
        Stage("strong", "strong", strong_attack(eps), "standing"),
    ]
    return tuple(dataclasses.replace(stage, cost=passes(stage.attack)) for stage in found)


def further_round(number: int, eps: float) -> Stage:
    """One more round of `strong` with other random numbers, from 1."""
    stage = Stage(
        f"strong_{number}",
        f"strong, round {number + 1}",
        strong_attack(eps),
        "standing",
        seed_offset=number,
    )
    return dataclasses.replace(stage, cost=passes(stage.attack))


def unbounded_attack() -> Attack:
    """An attack that may change every pixel to anything: what it does not break, nothing shows."""
    return Attack(eps=1.0, eps_iter=0.25, nb_iter=60, loss="margin", step_schedule="linear")


def passes(attack: Attack) -> float:
    """Return what an image costs at the most, on average, in gradients."""
    return in_gradients(attack, attack.gradients)


def in_gradients(attack: Attack, spent: float) -> float:
    """Return what an attack spent, as its records count it, in gradients: they count queries."""
    return spent * (QUERY_COST if attack.method == "square" else 1.0)


def needs_gradient(attack: Attack) -> bool:
    """Whether an attack follows the model's own gradient, so that without one it stands still."""
    return attack.method in ("pgd", "apgd")


def without_gradient(plan: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return what can be run of a plan on a model without a gradient, with its costs.

    Of the evaluation under audit, the first stage, its random starts are judged all the same.
    """
    first, *later = plan
    if needs_gradient(first.attack):
        first = dataclasses.replace(first, cost=QUERY_COST * first.attack.restarts)
    return first, *(stage for stage in later if not needs_gradient(stage.attack))
