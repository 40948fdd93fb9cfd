"""Named ensembles, and attacks by name."""

from __future__ import annotations

from collections.abc import Callable

from alp_repro.attacks.auto_attack import autoattack
from alp_repro.attacks.base import Attack
from alp_repro.attacks.phases import Ensemble, Phase
from alp_repro.attacks.registry import attack_class, attack_with_default_steps
from alp_repro.attacks.square import Square
from alp_repro.attacks.turns import Turns
from alp_repro.errors import InputError
from alp_repro.system.dtypes import Dtype
from alp_repro.validation.plain_numbers import number

BUDGET = 450


def strong_attack(eps: float, *, dtype: Dtype = "float32") -> Ensemble:
    """Return the preset `strong`: 450 gradients per image on average (docs/performance.md).

    Two to eighteen runs of 100 steps whose size falls linearly, in groups of three, and a search.
    The first run of a group targets a wrong class, another one in each group; its gradients are
    taken at noisy points and averaged by momentum, with steps from ε: on a distorted loss surface,
    as of CLP and LSQ, these lead upwards where gradients of the true label's loss at the point
    itself do not. The second has no target and the third has the target of the first; both follow
    the gradients at the point itself, with steps from ε/8: on smooth surfaces, as of adversarially
    trained models, they break images that the first misses. Images that two runs leave far from the
    boundary hardly ever break: further runs go to the images that came closest, and after six runs
    a Square attack finds what their gradients do not lead to. The sizes were tuned on MNIST.
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


# Functions of eps and dtype, by name.
PRESETS: dict[str, Callable[..., Ensemble]] = {
    "strong": strong_attack,
    "autoattack": autoattack,
}


def attack_named(name: str, *, eps: float | None) -> Attack | Ensemble:
    """Return the ensemble or the attack of that name, with its default settings.

    Raises:
      InputError: an unknown name, or no eps.
    """
    if eps is None:
        raise InputError(f"attack {name!r}: expected eps=..., a size on the [0, 1] scale")
    if name in PRESETS:
        return PRESETS[name](eps)
    return attack_with_default_steps(attack_class(name), eps)
