"""Ensembles that have a name, and what a name alone means."""

from __future__ import annotations

from collections.abc import Callable

from alp_repro.attacks.auto_attack import autoattack
from alp_repro.attacks.base import Attack
from alp_repro.attacks.phases import Ensemble, Phase
from alp_repro.attacks.registry import attack_class, usual
from alp_repro.attacks.square import Square
from alp_repro.attacks.turns import Turns
from alp_repro.errors import InputError
from alp_repro.system.dtypes import Dtype
from alp_repro.validation.plain_numbers import number

BUDGET = 450


def strong_attack(eps: float, *, dtype: Dtype = "float32") -> Ensemble:
    """Our preset `strong`: 450 gradients an image on average (docs/performance.md).

    Two to eighteen runs of 100 steps that fall linearly, in turns of three, and a search. The first
    of a turn is aimed at another wrong class by gradients at noisy points that momentum averages,
    with steps from ε: a distorted surface, as of CLP and LSQ, hides its way up from the true
    label's loss at the point itself, not from these. The second has no target and the third is
    aimed like the first, both by the point's own gradients and with steps from ε/8: on smooth
    surfaces, as of adversarially trained models, these find what the first pass over. What two runs
    have left far from its boundary hardly anything breaks: further runs go to the images that came
    closest, and after six a Square attack, which finds what no gradient of theirs leads to. The
    sizes were found on MNIST.
    """
    eps = number(eps, name="attack eps", low=0, high=1)

    def runs(restarts: int) -> Turns:
        return Turns(
            eps=eps,
            eps_iter=eps,
            nb_iter=100,
            restarts=restarts,
            loss="mixed",
            step_schedule="linear",
            momentum=0.75,
            gradient_noise=4 * eps,
            dtype=dtype,
        )

    return Ensemble(
        "strong",
        (
            Phase(runs(2)),
            Phase(runs(4), on="closest", budget=BUDGET, first=2),
            Phase(Square(eps=eps, nb_iter=5000), on="same", batch_size=16, first=6),
            Phase(runs(12), on="closest", budget=BUDGET, first=7),
        ),
    )


# By name: a function of eps and dtype.
PRESETS: dict[str, Callable[..., Ensemble]] = {
    "strong": strong_attack,
    "autoattack": autoattack,
}


def attack_named(name: str, *, eps: float | None) -> Attack | Ensemble:
    """Return the ensemble or the attack of that name, with its usual settings.

    Raises:
      InputError: there is none, or no eps.
    """
    if eps is None:
        raise InputError(f"attack {name!r}: its eps is needed, a size on the [0, 1] scale")
    if name in PRESETS:
        return PRESETS[name](eps)
    return usual(attack_class(name), eps)
