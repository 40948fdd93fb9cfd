"""Converts --attack and --grid to the library's attacks; flags have sizes on the 0-255 scale."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from alp_repro import attacks
from alp_repro.attacks import Attack, Ensemble
from alp_repro.attacks.base import setting_types, size_settings
from alp_repro.attacks.presets import PRESETS
from alp_repro.attacks.registry import attack_class, attack_with_default_steps
from alp_repro.attacks.turns import Turns
from alp_repro.data import dataset_spec
from alp_repro.errors import InputError

from .definitions import parse
from .flagfiles import one_of

if TYPE_CHECKING:
    from absl import flags

# Flags that set a setting of every attack that has it with the flag's own default.
SHARED = {
    "loss": "loss",
    "step_schedule": "step_schedule",
    "success": "success",
    "engine": "attack_engine",
    "dtype": "attack_dtype",
}
_VALUE_NAMES = {float: "number", int: "whole number", bool: "switch (true or false)"}


def attack_grid(values: flags.FlagValues) -> list[Attack | Ensemble]:
    """Return the attacks of --grid and --attack, in that order.

    Raises:
      InputError: no attack is given, or one cannot be parsed.
    """
    specs = list(values.attack)
    if values.grid:
        file = Path(values.flags_dir) / "attacks" / f"{values.grid}.cfg"
        if not file.is_file():
            known = sorted(f.stem for f in file.parent.glob("*.cfg"))
            raise InputError(f"unknown --grid={values.grid}: {one_of(known, file.parent)}")
        specs = [*parse([f"--flagfile={file}"]).attack, *specs]
    if not specs:
        raise InputError(
            "no attack given: expected --grid=table1 or --attack=pgd,eps_iter=2.55,nb_iter=40"
        )
    return [parse_attack(spec, values) for spec in specs]


def parse_attack(spec: str, values: flags.FlagValues) -> Attack | Ensemble:
    """Parse one `--attack`: METHOD[,KEY=VALUE...], sizes on the 0-255 scale; see the flag's help.

    Settings that are not given come from --loss, --step_schedule and the like, and ε from the data
    set.
    """
    method, *pairs = spec.split(",")
    try:
        attack = Turns if method in PRESETS else attack_class(method)
    except InputError as error:
        raise InputError(f"--attack={spec}: {error}, {', '.join(PRESETS)}") from None
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"--attack={spec}: expected KEY=VALUE, got {pair!r}")
        if key in settings:
            raise InputError(f"--attack={spec}: {key} is given twice")
        settings[key] = _parse_value(spec, attack, key, value)
    eps = settings.pop("eps", dataset_spec(values.dataset).eps / 255)
    shared: dict[str, Any] = {name: values[flag].value for name, flag in SHARED.items()}
    shared["dtype"] = attacks.resolve_dtype(shared["dtype"])
    if method in PRESETS:
        dtype = settings.pop("dtype", shared["dtype"])
        for key in settings.keys() - {"restarts"}:
            raise InputError(
                f"--attack={spec}: unknown key {key!r}; {method} takes eps, restarts and dtype"
            )
        return dataclasses.replace(PRESETS[method](eps, dtype=dtype), **settings)
    fields = {field.name: field for field in dataclasses.fields(attack)}
    for name, flag in SHARED.items():
        known = name in fields and shared[name] in get_args(setting_types(attack)[name])
        if known and fields[name].default == values[flag].default:
            settings.setdefault(name, shared[name])
    return attack_with_default_steps(attack, eps, **settings)


def watch_attack(values: flags.FlagValues) -> Attack:
    """Return the attack of --watch_attack.

    Raises:
      InputError: no attack is given, or --watch_every is less than 1.
    """
    if values.watch_every < 1 or not values.watch_attack:
        raise InputError(
            f"--watch_every={values.watch_every} --watch_attack={values.watch_attack}: expected "
            "at least 1 epoch, and an attack as in --watch_attack=pgd,eps_iter=2.55,nb_iter=40"
        )
    found = parse_attack(values.watch_attack, parse([f"--dataset={values.dataset}"]))
    if isinstance(found, Ensemble):
        raise InputError(
            f"--watch_attack={values.watch_attack}: expected a single attack such as pgd, not an "
            "ensemble"
        )
    return found


def _parse_value(spec: str, attack: type[Attack], key: str, value: str) -> Any:
    kind = setting_types(attack).get(key)
    if kind is None:
        known = ", ".join(setting_types(attack))
        raise InputError(f"--attack={spec}: unknown key {key!r}; expected one of {known}")
    try:
        if kind is float:
            number, sizes = float(value), size_settings(attack)
            return unit_size(f"--attack={spec}: {key}={value}", number) if key in sizes else number
        if kind is int:
            return int(value)
        if kind is bool:
            return {"true": True, "false": False}[value]
    except InputError:
        raise
    except (ValueError, KeyError):
        raise InputError(
            f"--attack={spec}: {key}={value!r} is not a valid {_VALUE_NAMES[kind]}"
        ) from None
    return attacks.resolve_dtype(value) if key == "dtype" else value


def unit_size(flag: str, size: float) -> float:
    """Convert a size from the 0-255 scale to [0, 1].

    Raises:
      InputError: it is positive, but too small for float32.
    """
    smallest = float(np.finfo(np.float32).tiny)
    if 0 < size / 255 < smallest:
        raise InputError(
            f"{flag}: too small for float32; expected 0, or at least {255 * smallest:.1e}"
        )
    return size / 255


def capped(attack: Attack | Ensemble, values: flags.FlagValues) -> Attack | Ensemble:
    """Return the attack with at most --max_restarts restarts."""
    if values.max_restarts is None:
        return attack
    return dataclasses.replace(attack, restarts=min(attack.restarts, values.max_restarts))
