"""How --attack and --grid become the library's attacks; sizes on the 0-255 scale in flags."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from alp_repro import attacks
from alp_repro.attacks import Attack, Ensemble
from alp_repro.attacks.base import kinds, size_settings
from alp_repro.attacks.presets import PRESETS
from alp_repro.attacks.registry import attack_class, usual
from alp_repro.attacks.turns import Turns
from alp_repro.data import dataset_spec
from alp_repro.errors import InputError

from .definitions import parse
from .flagfiles import one_of

if TYPE_CHECKING:
    from absl import flags

# Flags that say a setting for every attack that has it with the flag's own default.
SHARED = {
    "loss": "loss",
    "step_schedule": "step_schedule",
    "success": "success",
    "engine": "attack_engine",
    "dtype": "attack_dtype",
}


def attack_grid(values: flags.FlagValues) -> list[Attack | Ensemble]:
    """The attacks of --grid and --attack, in that order.

    Raises:
      InputError: none was named, or one does not parse.
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
            "no attack named: give --grid=table1 or --attack=pgd,eps_iter=2.55,nb_iter=40"
        )
    return [parse_attack(spec, values) for spec in specs]


def parse_attack(spec: str, values: flags.FlagValues) -> Attack | Ensemble:
    """One `--attack`: METHOD[,KEY=VALUE...], sizes on the 0-255 scale; see the flag's help.

    What it leaves out comes from --loss, --step_schedule and their like, and ε from the data set.
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
            raise InputError(f"--attack={spec}: {pair!r} is no KEY=VALUE")
        if key in settings:
            raise InputError(f"--attack={spec}: {key} is there twice")
        settings[key] = _parse_value(spec, attack, key, value)
    eps = settings.pop("eps", dataset_spec(values.dataset).eps / 255)
    shared: dict[str, Any] = {name: values[flag].value for name, flag in SHARED.items()}
    shared["dtype"] = attacks.resolve_dtype(shared["dtype"])
    if method in PRESETS:
        dtype = settings.pop("dtype", shared["dtype"])
        for key in settings.keys() - {"restarts"}:
            raise InputError(f"--attack={spec}: {key!r}: {method} has eps, restarts and dtype")
        return dataclasses.replace(PRESETS[method](eps, dtype=dtype), **settings)
    fields = {field.name: field for field in dataclasses.fields(attack)}
    for name, flag in SHARED.items():
        known = name in fields and shared[name] in get_args(kinds(attack)[name])
        if known and fields[name].default == values[flag].default:
            settings.setdefault(name, shared[name])
    return usual(attack, eps, **settings)


def watch_attack(values: flags.FlagValues) -> Attack:
    """The attack of --watch_attack.

    Raises:
      InputError: none is given, or --watch_every is no count.
    """
    if values.watch_every < 1 or not values.watch_attack:
        raise InputError(
            f"--watch_every={values.watch_every} --watch_attack={values.watch_attack}: 1 epoch or "
            "more and an attack are needed, as in --watch_attack=pgd,eps_iter=2.55,nb_iter=40"
        )
    found = parse_attack(values.watch_attack, parse([f"--dataset={values.dataset}"]))
    if isinstance(found, Ensemble):
        raise InputError(f"--watch_attack={values.watch_attack}: one attack is needed, as pgd")
    return found


def _parse_value(spec: str, attack: type[Attack], key: str, value: str) -> Any:
    kind = kinds(attack).get(key)
    if kind is None:
        known = ", ".join(kinds(attack))
        raise InputError(f"--attack={spec}: unknown {key!r}; one of {known}")
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
        raise InputError(f"--attack={spec}: {key}={value!r} is not a fitting value") from None
    return attacks.resolve_dtype(value) if key == "dtype" else value


def unit_size(flag: str, size: float) -> float:
    """A size on the 0-255 scale as one on [0, 1].

    Raises:
      InputError: it is above 0 and below what float32 holds.
    """
    smallest = float(np.finfo(np.float32).tiny)
    if 0 < size / 255 < smallest:
        raise InputError(f"{flag}: too small for float32; 0, or {255 * smallest:.1e} or more")
    return size / 255


def capped(attack: Attack | Ensemble, values: flags.FlagValues) -> Attack | Ensemble:
    """The attack with no more restarts than --max_restarts."""
    if values.max_restarts is None:
        return attack
    return dataclasses.replace(attack, restarts=min(attack.restarts, values.max_restarts))
