"""The attacks by name: what flags may name, and what results are read as.

    @registry.register
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(alp_repro.Attack):
        name = "mine"
        ...

makes an attack of one's own known. A package whose attacks are to be known without being imported
first names them in its entry points, in the group `alp_repro.attacks`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import metadata
from typing import Any, TypeVar

from alp_repro.attacks import base
from alp_repro.attacks.apgd import APGD
from alp_repro.attacks.base import Attack
from alp_repro.attacks.fab import FAB
from alp_repro.attacks.hopping import BasinHopping
from alp_repro.attacks.pgd import PGD
from alp_repro.attacks.spsa import SPSA
from alp_repro.attacks.square import Square
from alp_repro.attacks.turns import Turns
from alp_repro.errors import InputError
from alp_repro.validation.plain_numbers import quoted

ENTRY_POINTS = "alp_repro.attacks"
ATTACKS: dict[str, type[Attack]] = {
    one.name: one for one in (PGD, APGD, FAB, SPSA, Square, BasinHopping, Turns)
}

A = TypeVar("A", bound=type[Attack])


def register(attack: A) -> A:
    """Make an attack known by its name, and return it.

    Raises:
      InputError: it is no frozen dataclass that inherits from `Attack`, or its name is taken.
    """
    frozen = dataclasses.is_dataclass(attack) and attack.__dataclass_params__.frozen  # type: ignore[attr-defined]
    if not (frozen and issubclass(attack, Attack) and "__dataclass_fields__" in vars(attack)):
        raise InputError(f"attack {attack.__name__}: expected a frozen dataclass, an Attack")
    known = ATTACKS.setdefault(attack.name, attack)
    if (known.__module__, known.__qualname__) != (attack.__module__, attack.__qualname__):
        raise InputError(f"attack {attack.name}: expected another name, {known.__name__} has it")
    ATTACKS[attack.name] = attack  # a module that is imported afresh
    return attack


def attack_class(name: str) -> type[Attack]:
    """Return the attack of that name.

    Raises:
      InputError: there is none; with those that there are.
    """
    if name not in ATTACKS:
        for entry in metadata.entry_points(group=ENTRY_POINTS):
            if entry.name == name:
                register(entry.load())
    if name not in ATTACKS:
        raise InputError(f"attack: unknown method {quoted(name)}; one of {', '.join(ATTACKS)}")
    return ATTACKS[name]


def usual(attack: type[Attack], eps: float, **settings: Any) -> Attack:
    """Return an attack with 40 steps of eps/4 where it has such settings and no default for them.

    Args:
      attack: its class.
      eps: radius of the ball.
      settings: any of its settings.
    """
    needed: dict[str, Any] = {"eps": eps, "eps_iter": eps / 4, "nb_iter": 40}
    for field in dataclasses.fields(attack):
        if field.name in needed and field.default is dataclasses.MISSING:
            settings.setdefault(field.name, needed[field.name])
    return attack(**settings)


def attack_from_json(described: Any, *, extra_keys: bool = False) -> Attack:
    """Return the attack of what `Attack.to_json` wrote, in this version or before.

    Args:
      described: plain data.
      extra_keys: pass over settings that are not known here, as a later version's may be.

    Raises:
      InputError: it is no attack.
    """
    if not isinstance(described, Mapping):
        raise InputError(f"an attack's settings are needed, not {quoted(described)}")
    settings = dict(described)
    attack = attack_class(settings.pop("method", PGD.name))
    if extra_keys:
        settings = {name: value for name, value in settings.items() if attack.knows(name)}
    return attack.from_stored(settings)


def size_settings() -> frozenset[str]:
    """Return the settings of all attacks that flags and tables have on the 0-255 scale."""
    return frozenset().union(*(base.size_settings(attack) for attack in ATTACKS.values()))
