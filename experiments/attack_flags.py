"""How --attack and --grid become the library's attacks; sizes on the 0-255 scale in flags."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np

from alp_repro import attacks
from alp_repro.attacks import Attack
from alp_repro.data import dataset_spec
from alp_repro.errors import InputError

from .definitions import METHODS, SIZES, attack_keys, parse
from .flagfiles import one_of

if TYPE_CHECKING:
    from absl import flags


def attack_grid(values: flags.FlagValues) -> list[Attack]:
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


def parse_attack(spec: str, values: flags.FlagValues) -> Attack:
    """One `--attack`: METHOD[,KEY=VALUE...], sizes on the 0-255 scale; see the flag's help.

    What it leaves out comes from --loss, --step_schedule and their like, and ε from the data set.
    """
    method, *pairs = spec.split(",")
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"--attack={spec}: {pair!r} is no KEY=VALUE")
        if key in settings:
            raise InputError(f"--attack={spec}: {key} is there twice")
        settings[key] = _parse_value(spec, key, value)
    eps = settings.pop("eps", dataset_spec(values.dataset).eps / 255)
    shared = {
        "loss": values.loss,
        "step_schedule": values.step_schedule,
        "success": values.success,
        "engine": values.attack_engine,
        "dtype": attacks.resolve_dtype(values.attack_dtype),
    }
    if method == "strong":
        return dataclasses.replace(attacks.strong_attack(eps, dtype=shared["dtype"]), **settings)
    defaults = {
        "pgd": {"eps_iter": eps / 4, "nb_iter": 40},
        "apgd": {"eps_iter": 2 * eps, "nb_iter": 100},
        # The margin is its authors' loss, and there is no step.
        "square": {"eps_iter": eps, "nb_iter": 1000, "loss": "margin"},
        # The protocol's SPSA: 40 iterations, learning rate 0.01.
        "spsa": {"eps_iter": 0.01, "nb_iter": 40, "dtype": "float32", "engine": "loop"},
    }
    if method not in METHODS:
        raise InputError(f"--attack={spec}: unknown method {method!r}; one of {', '.join(METHODS)}")
    chosen: dict[str, Any] = {
        "method": method,
        "eps": eps,
        **shared,
        **defaults.get(method, defaults["pgd"]),
    }
    return Attack(**{**chosen, **settings})


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
    return parse_attack(values.watch_attack, parse([f"--dataset={values.dataset}"]))


def _parse_value(spec: str, key: str, value: str) -> Any:
    if key not in attack_keys():
        raise InputError(f"--attack={spec}: unknown {key!r}; one of {', '.join(attack_keys())}")
    kind = get_type_hints(Attack)[key]
    try:
        if kind is float:
            number = float(value)
            return unit_size(f"--attack={spec}: {key}={value}", number) if key in SIZES else number
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


def capped(attack: Attack, values: flags.FlagValues) -> Attack:
    """The attack with no more restarts than --max_restarts."""
    if values.max_restarts is None:
        return attack
    return dataclasses.replace(attack, restarts=min(attack.restarts, values.max_restarts))
