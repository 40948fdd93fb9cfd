"""The attacks of an audit, from cheap to dear, and their costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from alp_repro.attacks import APGD, PGD, QUERY_COST, Attack, Ensemble, Square, strong_attack

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
      starts_alone: its random starts are judged and no steps are taken, for want of a gradient.
      seed_offset: added to the audit's seed.
    """

    name: str
    title: str
    attack: Attack | Ensemble
    scope: Scope = "correct"
    starts_alone: bool = False
    seed_offset: int = 0

    @property
    def cost(self) -> float:
        """What an image costs at the most, on average, in gradients."""
        if self.starts_alone:
            return QUERY_COST * self.attack.restarts
        return self.attack.gradients


def default_attack(eps: float) -> PGD:
    """The evaluation under audit unless another is given: the paper's default PGD.

    40 steps of ε/30 from one random start: Madry et al. 2018 on MNIST, Table 1's second column.
    """
    return PGD(eps=eps, eps_iter=eps / 30, nb_iter=40)


def attack_stages(default: Attack | Ensemble, *, classes: int) -> tuple[Stage, ...]:
    """All stages in order; `default` is the evaluation under audit."""
    eps = default.eps
    plain = dataclasses.replace(default, restarts=1)
    few = classes < 4  # the targeted DLR needs four logits
    aims = min(classes - 1, 9)
    # One step must stay inside the ball, and more of them must reach its far side.
    large = PGD(eps=eps, eps_iter=eps * LARGE_STEP, nb_iter=100)
    found = [
        Stage("default", "Default: the evaluation under audit", default),
        Stage("steps", "PGD, steps of 0.65 ε", large),
        *_with_more_iterations(plain),
        Stage(
            "restarts",
            f"Default with {max(RESTARTS, default.restarts)} restarts",
            dataclasses.replace(default, restarts=max(RESTARTS, default.restarts)),
        ),
        Stage(
            "apgd_ce",
            "APGD, cross-entropy",
            APGD(eps=eps),
            "standing",
        ),
        Stage(
            "apgd_targeted",
            f"APGD, targeted {'margin' if few else 'DLR'}",
            APGD(eps=eps, restarts=aims, loss="margin" if few else "dlr", target="each"),
            "standing",
        ),
        Stage(
            "square",
            f"Square, black box, {BLACK_BOX_QUERIES} queries",
            Square(eps=eps, nb_iter=BLACK_BOX_QUERIES),
            "standing",
        ),
        # After the black box, whose part is to tell of gradients: it has a search of its own.
        Stage("strong", "strong", strong_attack(eps), "standing"),
    ]
    return tuple(found)


def _with_more_iterations(attack: Attack | Ensemble) -> list[Stage]:
    if "nb_iter" not in attack.varied:
        return []
    more: dict[str, Any] = {"nb_iter": 5 * int(attack.varied["nb_iter"])}
    title = "Default with 5 times the iterations"
    return [Stage("iterations", title, dataclasses.replace(attack, **more))]


def further_round(number: int, eps: float) -> Stage:
    """One more round of `strong` with other random numbers, from 1."""
    return Stage(
        f"strong_{number}",
        f"strong, round {number + 1}",
        strong_attack(eps),
        "standing",
        seed_offset=number,
    )


def unbounded_attack() -> Attack:
    """An attack that may change every pixel to anything: what it does not break, nothing shows."""
    return PGD(eps=1.0, eps_iter=0.25, nb_iter=60, loss="margin", step_schedule="linear")


def without_gradient(plan: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return what can be run of a plan on a model without a gradient, with its costs.

    Of the evaluation under audit, the first stage, its random starts are judged all the same.
    """
    first, *later = plan
    if first.attack.needs_gradient:
        first = dataclasses.replace(first, starts_alone=True)
    return first, *(stage for stage in later if not stage.attack.needs_gradient)
