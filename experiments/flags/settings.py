"""Converts flags to the library's dataclasses: a row's recipe, its run folder, its scale.

A row's flagfile (`flags/<dataset>/<row>.cfg`) holds the paper's full settings; a scale
(`flags/scale/<scale>/<dataset>/`) overrides some of them: `all.cfg` for every row, `<row>.cfg`
for one. `row_flags` reads both into new flag values, so that one process can handle many rows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alp_repro import attacks
from alp_repro.attacks import PGD, Attack
from alp_repro.data import dataset_spec
from alp_repro.errors import InputError
from alp_repro.losses import PENALTIES
from alp_repro.runs import RunDir
from alp_repro.training import Recipe

from .attack_flags import attack_grid, capped, parse_attack, watch_attack
from .definitions import (
    SCALES,
    SIZES,
    default_flags_dir,
    define_attack_flags,
    define_recipe_flags,
    define_run_flags,
    define_scale_flags,
    define_table,
    define_table_flags,
    fill_in,
    fill_in_table,
    parse,
)
from .flagfiles import one_of

if TYPE_CHECKING:
    from absl import flags

__all__ = [
    "SCALES",
    "SEED_FOLDER",
    "attack_grid",
    "capped",
    "changes",
    "default_flags_dir",
    "define_attack_flags",
    "define_recipe_flags",
    "define_run_flags",
    "define_scale_flags",
    "define_table",
    "define_table_flags",
    "eval_batch_size",
    "fill_in",
    "fill_in_table",
    "parse",
    "parse_attack",
    "recipe",
    "row_flags",
    "rows_of",
    "run_dir",
    "scale_folder",
    "scales_of",
    "watch_attack",
]

_LONGEST_NAME = 100
SEED_FOLDER = "seed"


def row_flags(
    *,
    dataset: str,
    row: str,
    scale: str | None,
    flags_dir: str | Path,
    extra: list[str] | None = None,
) -> flags.FlagValues:
    """Return the flag values of one row at one scale (None: the paper's settings).

    Raises:
      InputError: there is no such row or scale; the message lists those that exist.
    """
    folder = Path(flags_dir)
    _check_name(row)
    row_file = folder / dataset / f"{row}.cfg"
    if not row_file.is_file():
        raise InputError(
            f"unknown row {row!r} of {dataset}: {one_of(rows_of(folder, dataset), folder)}"
        )
    files = [row_file]
    if scale is not None:
        shared = folder / "scale" / scale / dataset / "all.cfg"
        if not shared.is_file():
            known = one_of(scales_of(folder, dataset), folder)
            raise InputError(f"unknown scale {scale!r} of {dataset}: {known}")
        own = shared.with_name(f"{row}.cfg")
        files += [shared, *([own] if own.is_file() else [])]
    return parse([*(f"--flagfile={file}" for file in files), *(extra or [])])


def scales_of(flags_dir: str | Path, dataset: str) -> list[str]:
    """Return the names of the scales that a data set has, the smallest first."""
    folder = Path(flags_dir) / "scale"
    return [scale for scale in SCALES if (folder / scale / dataset / "all.cfg").is_file()]


def rows_of(flags_dir: Path, dataset: str) -> list[str]:
    """Return the names of the rows that have a flagfile."""
    return sorted(file.stem for file in (flags_dir / dataset).glob("*.cfg"))


def run_dir(values: flags.FlagValues) -> RunDir:
    """Return the run folder of --runs_dir, --dataset and --row."""
    _check_name(values.row or "")
    return RunDir(Path(values.runs_dir) / values.dataset / values.row)


def scale_folder(table: flags.FlagValues) -> Path:
    """Return the folder of --scale's runs and tables, or that of --training_seed inside it."""
    folder = Path(table.runs_dir) / table.scale
    return folder if table.training_seed is None else folder / f"{SEED_FOLDER}{table.training_seed}"


def _check_name(row: str) -> None:
    """Refuse names that cannot be a folder's name on every system."""
    if len(row.encode()) > _LONGEST_NAME:
        raise InputError(
            f"--row={row[:20]}…: expected a name of at most {_LONGEST_NAME} bytes, got "
            f"{len(row.encode())}"
        )
    if not row.isprintable() or not row or row[0] == "." or any(mark in row for mark in "/\\"):
        raise InputError(f"--row={row}: expected the name of a run, as in --row=clp")


def recipe(values: flags.FlagValues) -> Recipe:
    """Return the recipe that the flags describe.

    Raises:
      InputError: flags contradict each other.
    """
    penalties = _penalties(values)
    fraction = values.adversarial_fraction
    needed = any("adversarial" in PENALTIES[name].needs for name in penalties)
    needed = needed or bool(fraction) or values.statistics_passes
    attack = _training_attack(values, needed=needed)
    try:
        drops = tuple(int(epoch) for epoch in values.learning_rate_drops)
    except ValueError as error:
        raise InputError(
            f"--learning_rate_drops: expected epochs as whole numbers ({error})"
        ) from None
    named_alike = {field.name for field in dataclasses.fields(Recipe)} & set(values)
    settings: dict[str, Any] = {name: values[name].value for name in named_alike}
    settings |= {
        "model": values.model or dataset_spec(values.dataset).model,
        "clean_weight": 1.0 - fraction,
        "adversarial_weight": fraction,
        "attack": attack,
        "learning_rate_drops": drops,
        "dtype": attacks.resolve_dtype(values.train_dtype),
        "penalties": penalties,
    }
    if attack is None:
        settings |= {"attack_warmup_steps": 0, "attack_warmup_nb_iter": None}
    return Recipe(**settings)


def _penalties(values: flags.FlagValues) -> dict[str, float]:
    """Return the penalties of --regularizer with their weights.

    Raises:
      InputError: a penalty is unknown or given twice, or its weight is missing.
    """
    text, weight = values.regularizer, values.regularizer_weight
    several = ":" in text
    found: dict[str, float] = {}
    for part in text.split(",") if several else [] if text == "none" else [f"{text}:{weight}"]:
        name, _, number = part.partition(":")
        if name not in PENALTIES:
            known = ", ".join(["none", *PENALTIES])
            raise InputError(
                f"--regularizer={text}: unknown penalty {name!r}; expected one of {known}"
            )
        if name in found:
            raise InputError(f"--regularizer={text}: {name} is given twice")
        try:
            found[name] = float(number)
        except ValueError:
            raise InputError(
                f"--regularizer={text}: expected a weight, as in {name}:0.5, got {number!r}"
            ) from None
    if several and weight:
        raise InputError(
            f"--regularizer={text} --regularizer_weight={weight}: the penalties already have "
            "weights; leave --regularizer_weight out"
        )
    if not several and (text == "none") != (weight == 0):
        raise InputError(
            f"--regularizer={text} --regularizer_weight={weight}: expected both a penalty and a "
            "weight other than 0, or neither"
        )
    return found


def _training_attack(values: flags.FlagValues, *, needed: bool) -> Attack | None:
    """Return the attack of the --train flags; None if no adversarial images are needed.

    Raises:
      InputError: a flag is missing; or no adversarial images are needed and one is given, other
        than the steps and step sizes, which a scale gives to all rows.
    """
    if not needed:
        for name in ("train_eps", "train_target", "joint_batch", "crafting"):
            if values[name].value != values[name].default:
                raise InputError(
                    f"--{name}={values[name].value}: this recipe does not use adversarial images; "
                    "expected --adversarial_fraction or --regularizer=alp with it"
                )
        return None
    for name in ("train_eps", "train_eps_iter", "train_nb_iter"):
        if values[name].value is None:
            raise InputError(f"--{name} is required: this recipe trains on adversarial images")
    return PGD(
        eps=values.train_eps / 255,
        eps_iter=values.train_eps_iter / 255,
        nb_iter=values.train_nb_iter,
        target=values.train_target,
        dtype=attacks.resolve_dtype(values.train_attack_dtype),
    )


def eval_batch_size(values: flags.FlagValues, *, gpu: bool) -> int:
    """Return --eval_batch_size, or a default for the data set and the device."""
    if values.eval_batch_size is not None:
        return values.eval_batch_size
    return dataset_spec(values.dataset).eval_batch_size * (20 if gpu else 1)


def changes(paper: Recipe, scaled: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return what a scale changes in a recipe: setting -> (paper's, this scale's); sizes 0-255."""
    return {
        key: (before, after)
        for key, after in _flat(scaled).items()
        if (before := _flat(paper).get(key)) != after
    }


def _flat(settings: Recipe) -> dict[str, Any]:
    found = settings.to_json()
    for field in dataclasses.fields(Recipe):  # `to_json` leaves some defaults out
        if field.name != "penalties":
            found.setdefault(field.name, getattr(settings, field.name))
    found["train_dtype"] = found.pop("dtype")
    attack = found.pop("attack") or {}
    for key, value in attack.items():
        name = "train_attack_dtype" if key == "dtype" else f"train_{key}"
        found[name] = round(value * 255, 6) if key in SIZES else value
    return found
