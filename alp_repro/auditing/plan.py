"""The plan of an audit: its phases, from cheap to expensive.

Each phase has a name, a title and a record of its own. `on="all"` means all images that the model
classifies correctly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from alp_repro.attacks import (
    APGD,
    PGD,
    Attack,
    Ensemble,
    Phase,
    RandomPoints,
    Square,
    as_ensemble,
    strong_attack,
)

RESTARTS = 10
BLACK_BOX_QUERIES = 1000
NOISE_POINTS = 100
# The paper's larger step: 50 of 76.5 on MNIST.
LARGE_STEP = 50 / 76.5


def default_attack(eps: float) -> PGD:
    """Return the evaluation under audit unless another is given: the paper's default PGD.

    40 steps of ε/30 from one random start: Madry et al. 2018 on MNIST, Table 1's second column.
    """
    return PGD(eps=eps, eps_iter=eps / 30, nb_iter=40)


def audit_phases(default: Attack | Ensemble, *, classes: int) -> tuple[Phase, ...]:
    """Return all phases in order; the first is `default`, the evaluation under audit."""
    eps = default.eps
    many = dataclasses.replace(default, restarts=max(RESTARTS, default.restarts))
    # One step must stay inside the ball, and more of them must reach its far side.
    large = PGD(eps=eps, eps_iter=eps * LARGE_STEP, nb_iter=100)
    few = classes < 4  # the targeted DLR needs four logits
    aimed = APGD(
        eps=eps, restarts=min(classes - 1, 9), loss="margin" if few else "dlr", target="each"
    )
    black_box = Square(eps=eps, nb_iter=BLACK_BOX_QUERIES)
    queries = f"Square, black box, {BLACK_BOX_QUERIES} queries"
    return (
        Phase(default, "all", name="default", title="Default: the evaluation under audit"),
        Phase(large, "all", name="steps", title="PGD, steps of 0.65 ε"),
        *_more_iterations(default),
        Phase(many, "all", name="restarts", title=f"Default with {many.restarts} restarts"),
        Phase(APGD(eps=eps), name="apgd_ce", title="APGD, cross-entropy"),
        Phase(aimed, name="apgd_targeted", title=f"APGD, targeted {'margin' if few else 'DLR'}"),
        Phase(black_box, name="square", title=queries),
        # After the black box, which is to show whether gradients mislead: it has a Square phase.
        Phase(strong_attack(eps), name="strong", title="strong"),
    )


def _more_iterations(default: Attack | Ensemble) -> list[Phase]:
    if "nb_iter" not in default.varied:
        return []
    more: dict[str, Any] = {"nb_iter": 5 * int(default.varied["nb_iter"]), "restarts": 1}
    title = "Default with 5 times the iterations"
    return [Phase(dataclasses.replace(default, **more), "all", name="iterations", title=title)]


def with_comparisons(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Return phases with the weaker attacks that `sanity` compares with the first of them."""
    default, *others = phases
    attack = dataclasses.replace(default.attack, restarts=1)
    eps = attack.eps
    # A query of Square from its first point, stripes of ±ε at random: nothing is followed.
    noise = Square(eps=eps, nb_iter=1, restarts=NOISE_POINTS)
    found = [Phase(noise, "all", name="noise", title=f"{NOISE_POINTS} random points")]
    if attack.needs_gradient:
        many = attack if isinstance(attack, PGD) else default_attack(eps)
        one_step = dataclasses.replace(many, eps_iter=eps, nb_iter=1)
        half = scaled(attack, eps / 2)
        found += [
            Phase(one_step, "all", name="one_step", title="One step of ε"),
            Phase(half, "all", name="half", title="Default in half the ball"),
        ]
    return default, *found, *others


def scaled(attack: Attack | Ensemble, eps: float) -> Attack | Ensemble:
    """Return an attack in a ball of another size, its steps scaled in proportion."""
    if isinstance(attack, Ensemble):
        phases = [dataclasses.replace(p, attack=scaled(p.attack, eps)) for p in attack.phases]
        return dataclasses.replace(attack, phases=tuple(phases))
    if not isinstance(attack, PGD):
        return dataclasses.replace(attack, eps=eps)
    share = eps / attack.eps
    return dataclasses.replace(attack, eps=eps, eps_iter=min(attack.eps_iter * share, eps))


def further_round(number: int, eps: float) -> Phase:
    """Return one more round of `strong` with other random numbers; rounds count from 1."""
    title = f"strong, round {number + 1}"
    return Phase(strong_attack(eps), seed=number, name=f"strong_{number}", title=title)


def unbounded_attack() -> Attack:
    """Return an attack in the ball of radius 1, which holds every image."""
    return PGD(eps=1.0, eps_iter=0.25, nb_iter=60, loss="margin", step_schedule="linear")


def without_gradient(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Return the phases that a model without a gradient can be attacked with.

    The evaluation under audit, which comes first, stays if it follows gradients too: as the points
    that it starts from and, having no gradient, never leaves.
    """
    default, *others = phases
    if default.attack.needs_gradient:
        first = as_ensemble(default.attack).attacks[0]
        eps = default.attack.eps if getattr(first, "random_start", False) else 0.0
        starts = RandomPoints(eps=eps, restarts=default.attack.restarts)
        title = f"{default.title.partition(':')[0]}: stays at its starts, as there is no gradient"
        default = dataclasses.replace(default, attack=starts, title=title)
    return default, *(phase for phase in others if not phase.attack.needs_gradient)
