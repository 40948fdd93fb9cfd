"""Ensembles: attacks one after the other, each on the images that those before it left.

Runs of an ensemble are numbered through all of its phases, from 0, as the restarts of one attack
are. An attack counts its own restarts in each phase, and its random numbers depend on these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol, get_args

import numpy as np

from alp_repro.attacks.base import Attack
from alp_repro.attacks.registry import attack_from_json
from alp_repro.errors import InputError
from alp_repro.system.dtypes import Dtype

On = Literal["standing", "closest", "same"]


@dataclasses.dataclass(frozen=True)
class Phase:
    """An attack with its restarts, and the images that get it.

    Attributes:
      attack: what is done; an image leaves when it is broken.
      on: `standing`: all images that are left; `closest`: as many of them as the budget pays for,
        those first that had the largest loss before the first such phase; where there was one
        before, of its images alone; `same`: what is left of the images of the phase before, with
        which these have been paid for.
      budget: of `closest`: gradients an image, on average over all images, that all phases so far,
        this one and those on the same images may take; a query counts as half a gradient.
      batch_size: items in a batch at the most, where few images come so far: a batch that fillers
        fill up costs as much as a full one.
      first: the number of the attack's first restart here, where it goes on with what it did in an
        earlier phase.
    """

    attack: Attack
    on: On = "standing"
    budget: int = 0
    batch_size: int | None = None
    first: int = 0

    def __post_init__(self) -> None:
        """Refuses what is no phase."""
        if not isinstance(self.attack, Attack) or self.on not in get_args(On):
            raise InputError(f"phase: an attack on one of {', '.join(get_args(On))} is needed")
        if (self.on == "closest") != (self.budget > 0):
            raise InputError("phase: a budget above 0 and on=closest go together")


class Reached(Protocol):
    """How far the runs on each image are, as an `AttackRecord` tells."""

    @property
    def first_break(self) -> np.ndarray:
        """Int [n], the first run that broke each image, -1: none yet."""

    @property
    def next_restart(self) -> np.ndarray:
        """Int [n], runs done on each image."""

    @property
    def closest(self) -> np.ndarray | None:
        """Float [n], the largest loss before the first budget; None without one."""


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Phases one after the other; read like an attack where both are asked the same.

    Attributes:
      name: that flags and results have.
      phases: all in one ball.
      restarts: how many runs are done, from the first; default: all.
    """

    name: str
    phases: tuple[Phase, ...]
    restarts: int = 0

    needs_gradient = True
    of_the_paper = False

    def __post_init__(self) -> None:
        """Counts the runs, and refuses phases that are no ensemble."""
        if not self.phases or len({phase.attack.eps for phase in self.phases}) > 1:
            raise InputError(f"ensemble {self.name}: phases in one and the same ball are needed")
        kinds = [phase.on for phase in self.phases]
        seen = kinds[kinds.index("closest") :] if "closest" in kinds else kinds
        if kinds[0] != "standing" or ("closest" in kinds and "standing" in seen):
            raise InputError(
                f"ensemble {self.name}: the first phase is on standing images, and none after one "
                "on the closest is"
            )
        runs = int(self._ends[-1])
        if not 0 <= self.restarts <= runs:
            raise InputError(
                f"attack restarts {self.restarts}: {self.name} has {runs}, and 1 or more are needed"
            )
        object.__setattr__(self, "restarts", self.restarts or runs)

    @property
    def _ends(self) -> np.ndarray:
        """The number of runs up to the end of each phase."""
        return np.cumsum([phase.attack.restarts for phase in self.phases])

    def phase_at(self, restart: int) -> int:
        """Return which phase a run belongs to."""
        return int(np.searchsorted(self._ends, restart, side="right"))

    def end_of(self, phase: int) -> int:
        """Return the number of runs up to the end of a phase."""
        return int(self._ends[phase])

    def restarts_of(self, phase: int, runs: np.ndarray) -> np.ndarray:
        """Return which of a phase's attack's own restarts these runs are, like `runs`."""
        one = self.phases[phase]
        return runs - (self.end_of(phase) - one.attack.restarts) + one.first

    @property
    def _rounds(self) -> list[tuple[int, int, int]]:
        """(first run, end, budget) of phases that the same images get; no budget: all get them."""
        found: list[tuple[int, int, int]] = []
        begins = [0, *self._ends[:-1].tolist()]
        for phase, begin, end in zip(self.phases, begins, self._ends.tolist(), strict=True):
            if phase.on == "closest" or not found:
                found.append((begin, end, phase.budget))
            else:
                found[-1] = (found[-1][0], end, found[-1][2])
        return found

    @property
    def judged_by(self) -> int:
        """After how many runs it is known how close each image came; 0: it is not asked."""
        first = self._rounds[0][1]
        return first if len(self._rounds) > 1 else 0

    @property
    def eps(self) -> float:
        """Of the ball."""
        return self.phases[0].attack.eps

    @property
    def dtype(self) -> Dtype:
        """Of the first phase's crafting."""
        return self.phases[0].attack.dtype

    @property
    def compiled(self) -> bool:
        """Whether all phases may be traced."""
        return all(phase.attack.compiled for phase in self.phases)

    @property
    def least_classes(self) -> int:
        """How many classes all phases need."""
        return max(phase.attack.least_classes for phase in self.phases)

    def cost_of(self, restarts: np.ndarray | int) -> np.ndarray:
        """Return what an image's first so many runs take; see `Attack.cost_of`."""
        whole, begin = np.asarray(restarts), 0
        cost = np.zeros_like(whole, dtype=np.int64)
        for phase in self.phases:
            cost += phase.attack.cost_of(np.clip(whole - begin, 0, phase.attack.restarts))
            begin += phase.attack.restarts
        return cost

    @property
    def gradients(self) -> int:
        """What an image costs at the most, on average over the images."""
        first, most = self.cost_of(np.array([self._rounds[0][1], self.restarts])).tolist()
        budget = max(budget for _, _, budget in self._rounds)
        return min(most, max(budget, first)) if budget else most

    def allowed(self, reached: Reached, restarts: int) -> np.ndarray:
        """Return how many of so many runs each image gets, int [n], as far as is known now.

        While the phases before the first budget are not over, no more than theirs; then those of
        the next round to the images that came closest, in this order, as long as the budget pays
        for all of them, and what an image that breaks leaves of it goes to the next image; then so
        those of the last. So an image's share depends on no more than what runs did to it and to
        those before it, and only grows until all is settled.
        """
        (_, first, _), *later = self._rounds
        broke, closest = reached.first_break, reached.closest
        if closest is None or restarts <= first:
            return np.full(len(broke), restarts)
        allowed = np.full(len(broke), first)
        going_on = (broke < 0) | (broke >= first)
        order = np.argsort(np.where(going_on, -closest, np.inf), kind="stable")
        order = order[: going_on.sum()]
        spent = int(self.cost_of(np.where(going_on, first, broke + 1)).sum())
        for begin, end, budget in later:
            behind = (broke[order] < 0) & (reached.next_restart[order] < begin)
            if restarts <= begin or behind.any():
                break
            settled = restarts >= end  # else those that broke count with all runs
            order, taken = self._paid_for(
                order, broke, begin, end, budget * len(broke) - spent, settled
            )
            spent += taken
            allowed[order] = min(end, restarts)
            order = order[(broke[order] < 0) | (broke[order] >= end)]
        return allowed

    def _paid_for(
        self, order: np.ndarray, broke: np.ndarray, begin: int, end: int, left: int, settled: bool
    ) -> tuple[np.ndarray, int]:
        """The first of these images that `left` gradients suffice for, and what they take."""
        broke = broke[order]
        before, whole = self.cost_of(np.array([begin, end]))
        early = (broke >= begin) & (broke < end) & settled
        taken = np.where(early, self.cost_of(broke + 1), whole) - before
        enough = np.cumsum(taken) - taken + (whole - before) <= left
        return order[enough], int(taken[enough].sum())

    def without_budget(self) -> Ensemble:
        """Return the same with every phase on all images that are left."""
        phases = [dataclasses.replace(p, on="standing", budget=0) for p in self.phases]
        return dataclasses.replace(self, phases=tuple(phases))

    def crafted_in(self, dtype: Dtype) -> Ensemble:
        """Return the same, crafted in another dtype where it was crafted in that of `dtype`."""
        phases = [
            dataclasses.replace(p, attack=dataclasses.replace(p.attack, dtype=dtype))
            if p.attack.dtype == self.dtype
            else p
            for p in self.phases
        ]
        return dataclasses.replace(self, phases=tuple(phases))

    def non_default_settings(self, *, leaving_out: Collection[str] = ()) -> dict[str, Any]:
        """How it differs from the paper's PGD; see `Attack.non_default_settings`."""
        found = {"method": self.name, "dtype": self.dtype}
        plain = [*leaving_out, *(["dtype"] if self.dtype == "float32" else [])]
        return {name: value for name, value in found.items() if name not in plain}

    def non_default_text(self, *, leaving_out: Collection[str] = ()) -> str:
        """`non_default_settings` in one line."""
        return " ".join(
            f"{k}={v}" for k, v in self.non_default_settings(leaving_out=leaving_out).items()
        )

    @property
    def varied(self) -> dict[str, str]:
        """What a table's columns vary, as text."""
        return {"eps": f"{self.eps * 255:g}", "restarts": str(self.restarts)}

    def __str__(self) -> str:
        """One line for captions and progress."""
        words = [self.name, f"eps={self.eps * 255:g}", f"r={self.restarts}"]
        return " ".join([*words, self.non_default_text(leaving_out=("method",))]).rstrip()

    def to_json(self) -> dict[str, Any]:
        """Plain data; see `Attack.to_json`."""
        defaults = {f.name: f.default for f in dataclasses.fields(Phase)}
        phases = [
            {n: v for n, v in vars(phase).items() if v != defaults[n]}
            | {"attack": phase.attack.to_json()}
            for phase in self.phases
        ]
        told = {"method": self.name, "eps": self.eps, "dtype": self.dtype}
        return {**told, "restarts": self.restarts, "phases": phases}


def ensemble_of(attack: Attack | Ensemble) -> Ensemble:
    """Return an attack as the ensemble of one phase that it is, or an ensemble as it is."""
    return attack if isinstance(attack, Ensemble) else Ensemble(attack.name, (Phase(attack),))


def attack_of(described: Mapping[str, Any], *, source: str = "") -> Attack | Ensemble:
    """Return what a result says of its attack or ensemble.

    Args:
      described: plain data.
      source: what it was read from, for the error.

    Raises:
      InputError: it says of none; settings that are not known here are passed over.
    """
    try:
        if "phases" not in described:
            return attack_from_json(described, extra_keys=True)
        phases = [
            Phase(**{**phase, "attack": attack_from_json(phase["attack"], extra_keys=True)})
            for phase in described["phases"]
        ]
        return Ensemble(str(described["method"]), tuple(phases), described.get("restarts", 0))
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{source or 'settings'}: no attack ({error})") from error
    except InputError as error:
        raise InputError(f"{source}: {error}" if source else str(error)) from error
