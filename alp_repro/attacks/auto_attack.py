"""AutoAttack for Keras models: its parts, in the order in which they are run."""

from __future__ import annotations

import dataclasses
from typing import Literal

from alp_repro.attacks.apgd import APGD
from alp_repro.attacks.base import Attack
from alp_repro.attacks.fab import FAB
from alp_repro.attacks.losses import Loss
from alp_repro.attacks.phases import Ensemble, Phase
from alp_repro.attacks.square import Square
from alp_repro.errors import InputError
from alp_repro.system.dtypes import Dtype
from alp_repro.validation.plain_numbers import quoted

Version = Literal["standard", "plus", "rand"]
_MAX_TARGETS = 9
_QUERIES = 5000


def autoattack(
    eps: float, *, version: Version = "standard", classes: int = 10, dtype: Dtype = "float32"
) -> Ensemble:
    """Return AutoAttack (Croce & Hein 2020), each part on the images that earlier parts left.

    Args:
      eps, version, classes: see `autoattack_parts`.
      dtype: the dtype of the crafting.
    """
    parts = autoattack_parts(eps, version=version, classes=classes).values()
    name = "autoattack" if version == "standard" else f"autoattack-{version}"
    return Ensemble(name, tuple(Phase(dataclasses.replace(one, dtype=dtype)) for one in parts))


def autoattack_parts(
    eps: float, *, version: Version = "standard", classes: int = 10
) -> dict[str, Attack]:
    """Return the parts of AutoAttack by name, in their order.

    `standard`: APGD on the cross-entropy, APGD on the DLR and FAB aimed at nine wrong classes each,
    Square with 5,000 queries. `plus`: APGD on both losses with five restarts before these; the
    authors' untargeted FAB is left out, since each of its steps takes a gradient of every class.
    `rand`: APGD on both losses, for a random model whose
    logits and gradients are means over passes (`classifiers.voting`, the authors' 20).

    Args:
      eps: radius of the ball, on the model's input scale.
      version: `standard`, `plus` or `rand`.
      classes: of the model. With fewer than the DLR needs, the margin replaces it; with fewer
        than ten, there are as many targets as there are wrong classes.

    Raises:
      InputError: an unknown version, or fewer than two classes.
    """
    if classes < 2:
        raise InputError(f"autoattack classes {quoted(classes)}: expected 2 or more")
    targets = min(_MAX_TARGETS, classes - 1)
    plain: Loss = "dlr" if classes >= 3 else "margin"
    aimed: Loss = "dlr" if classes >= 4 else "margin"
    standard: dict[str, Attack] = {
        "APGD-CE": APGD(eps=eps),
        "APGD-T": APGD(eps=eps, loss=aimed, target="each", restarts=targets),
        "FAB-T": FAB(eps=eps, restarts=targets),
        "Square": Square(eps=eps, nb_iter=_QUERIES),
    }
    if version == "standard":
        return standard
    if version == "plus":
        first: dict[str, Attack] = {
            "APGD-CE": APGD(eps=eps, restarts=5),
            "APGD-DLR": APGD(eps=eps, loss=plain, restarts=5),
        }
        return first | {name: part for name, part in standard.items() if name not in first}
    if version == "rand":
        return {
            "APGD-CE": APGD(eps=eps),
            "APGD-DLR": APGD(eps=eps, loss=plain),
        }
    raise InputError(f"autoattack version={quoted(version)}: expected one of standard, plus, rand")
