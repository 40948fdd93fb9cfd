"""The attacks by name, for flags and for stored results.

    @registry.register
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(alp_repro.Attack):
        name = "mine"
        ...

registers your own attack. A package can also list its attacks in its entry points, in the group
`alp_repro.attacks`; they are then found without an import.
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
from alp_repro.attacks.random_points import RandomPoints
from alp_repro.attacks.spsa import SPSA
from alp_repro.attacks.square import Square
from alp_repro.attacks.turns import Turns
from alp_repro.errors import InputError
from alp_repro.validation.plain_numbers import quoted

ENTRY_POINTS = "alp_repro.attacks"
ATTACKS: dict[str, type[Attack]] = {
    one.name: one for one in (PGD, APGD, FAB, SPSA, Square, BasinHopping, Turns, RandomPoints)
}

A = TypeVar("A", bound=type[Attack])


def register(attack: A) -> A:
    """Register an attack under its name, and return it.

    Raises:
      InputError: not a frozen dataclass that inherits from `Attack`, or the name is taken.
    """
    frozen = dataclasses.is_dataclass(attack) and attack.__dataclass_params__.frozen  # type: ignore[attr-defined]
    if not (frozen and issubclass(attack, Attack) and "__dataclass_fields__" in vars(attack)):
        raise InputError(
            f"attack {attack.__name__}: expected a frozen dataclass that inherits from Attack"
        )
    known = ATTACKS.setdefault(attack.name, attack)
    if (known.__module__, known.__qualname__) != (attack.__module__, attack.__qualname__):
        raise InputError(
            f"attack {attack.__name__}: its name {attack.name!r} is already taken by "
            f"{known.__name__}"
        )
    ATTACKS[attack.name] = attack  # its module may have been reloaded
    return attack


def attack_class(name: str) -> type[Attack]:
    """Return the attack class of that name.

    Raises:
      InputError: an unknown name; the message lists the known ones.
    """
    if name not in ATTACKS:
        for entry in metadata.entry_points(group=ENTRY_POINTS):
            if entry.name == name:
                register(entry.load())
    if name not in ATTACKS:
        raise InputError(
            f"attack: unknown method {quoted(name)}, expected one of {', '.join(ATTACKS)}"
        )
    return ATTACKS[name]


def attack_with_default_steps(attack: type[Attack], eps: float, **settings: Any) -> Attack:
    """Return an attack, with 40 steps of eps/4 if these settings have no default of their own.

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
    """Return the attack of settings that `Attack.to_json` wrote, in this version or earlier.

    Args:
      described: the settings.
      extra_keys: ignore unknown settings, which a later version may have added.

    Raises:
      InputError: the settings do not describe an attack.
    """
    if not isinstance(described, Mapping):
        raise InputError(f"expected the settings of an attack, got {quoted(described)}")
    settings = dict(described)
    attack = attack_class(settings.pop("method", PGD.name))
    if extra_keys:
        settings = {name: value for name, value in settings.items() if attack.accepts_setting(name)}
    return attack.from_stored(settings)


def size_settings() -> frozenset[str]:
    """Return the names of all attacks' settings that flags and tables have on the 0-255 scale."""
    return frozenset().union(*(base.size_settings(attack) for attack in ATTACKS.values()))
