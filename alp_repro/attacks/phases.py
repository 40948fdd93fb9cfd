"""Ensembles: attacks in sequence, each on the images that the earlier ones did not break.

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

On = Literal["standing", "closest", "same", "all"]


@dataclasses.dataclass(frozen=True)
class Phase:
    """An attack with its restarts, and the images that get it.

    Attributes:
      attack: the attack; it skips images that are broken. Where phases are run one by one, each
        with a record of its own, as in an audit, this may be an ensemble.
      on: `standing`: all images that are not broken; `closest`: as many of them as the budget
        allows, in descending order of their largest loss before the first such phase, and only
        images of the previous such phase if there was one; `same`: the unbroken images of the
        previous phase, whose budget includes these restarts. Where phases are run one by one, also
        `all`: every image, so that the attack has an accuracy of its own.
      budget: of `closest`: gradients per image, on average over all images, that all phases so far,
        this one and those on the same images may take; a query counts as half a gradient.
      batch_size: the largest batch, for phases that few images reach: a batch that is mostly
        padding costs as much as a full one.
      first: the number of the attack's first restart in this phase, if it continues the restarts of
        an earlier phase.
      seed: added to the evaluation's seed.
      name: a short name for files and tables.
      title: a name for tables and pages.

    Examples:
      >>> phase = alp_repro.Phase(alp_repro.Square(eps=8 / 255))
      >>> phase.on
      'standing'
    """

    attack: Attack | Ensemble
    on: On = "standing"
    budget: int = 0
    batch_size: int | None = None
    first: int = 0
    seed: int = 0
    name: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.attack, Attack | Ensemble) or self.on not in get_args(On):
            raise InputError(
                f"phase: expected an attack and on=one of {', '.join(get_args(On))}, got "
                f"{type(self.attack).__name__} and on={self.on!r}"
            )
        if (self.on == "closest") != (self.budget > 0):
            raise InputError(
                f"phase on={self.on}: expected a budget above 0 with on=closest, and no budget "
                f"otherwise, got {self.budget}"
            )


class RunState(Protocol):
    """The state of the runs on each image, as in an `AttackRecord`."""

    @property
    def first_break(self) -> np.ndarray:
        """Int [n], the first run that broke each image, -1: none yet."""

    @property
    def next_restart(self) -> np.ndarray:
        """Int [n], runs done on each image."""

    @property
    def best_early_loss(self) -> np.ndarray | None:
        """Float [n], the largest loss before the first budget; None without one."""


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """A sequence of phases, with the properties of an attack that callers need of both.

    Attributes:
      name: the ensemble's name in flags and results.
      phases: the phases, all with the same eps.
      restarts: the number of runs, from the first; default: all.

    Examples:
      >>> first = alp_repro.Phase(alp_repro.PGD(eps=0.1, eps_iter=0.02, nb_iter=10, restarts=3))
      >>> then = alp_repro.Phase(alp_repro.Square(eps=0.1))
      >>> both = alp_repro.Ensemble("both", (first, then))
      >>> both.restarts  # three runs of the one, one of the other
      4
    """

    name: str
    phases: tuple[Phase, ...]
    restarts: int = 0

    needs_gradient = True
    is_paper_attack = False

    def __post_init__(self) -> None:
        """Count the runs and check that the phases fit together."""
        if not self.phases or len({phase.attack.eps for phase in self.phases}) > 1:
            raise InputError(f"ensemble {self.name}: expected phases that all have the same eps")
        kinds = [phase.on for phase in self.phases]
        if "all" in kinds or len(self.attacks) < len(kinds):
            raise InputError(
                f"ensemble {self.name}: expected phases of one attack each, none of them on all "
                "images; a list of such phases can be audited"
            )
        seen = kinds[kinds.index("closest") :] if "closest" in kinds else kinds
        if kinds[0] != "standing" or ("closest" in kinds and "standing" in seen):
            raise InputError(
                f"ensemble {self.name}: expected the first phase on=standing, and none on=standing "
                "after one on=closest"
            )
        runs = int(self._ends[-1])
        if not 0 <= self.restarts <= runs:
            raise InputError(
                f"attack restarts {self.restarts}: expected 1 to {runs}, the runs of {self.name}"
            )
        object.__setattr__(self, "restarts", self.restarts or runs)

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """The attack of each phase."""
        return tuple(p.attack for p in self.phases if isinstance(p.attack, Attack))

    @property
    def _ends(self) -> np.ndarray:
        """The number of runs up to the end of each phase."""
        return np.cumsum([phase.attack.restarts for phase in self.phases])

    def phase_at(self, run: np.ndarray | int) -> np.ndarray:
        """Return which phase each run belongs to; those past the end, to the last."""
        return np.searchsorted(self._ends[:-1], run, side="right")

    def end_of(self, phase: int) -> int:
        """Return the number of runs up to the end of a phase."""
        return int(self._ends[phase])

    def restarts_of(self, phase: int, runs: np.ndarray) -> np.ndarray:
        """Return which of a phase's attack's own restarts these runs are, like `runs`."""
        one = self.phases[phase]
        return runs - (self.end_of(phase) - one.attack.restarts) + one.first

    @property
    def _rounds(self) -> list[tuple[int, int, int]]:
        """(first run, end, budget) of consecutive phases on the same images; 0: all images."""
        found: list[tuple[int, int, int]] = []
        begins = [0, *self._ends[:-1].tolist()]
        for phase, begin, end in zip(self.phases, begins, self._ends.tolist(), strict=True):
            if phase.on == "closest" or not found:
                found.append((begin, end, phase.budget))
            else:
                found[-1] = (found[-1][0], end, found[-1][2])
        return found

    @property
    def runs_before_budget(self) -> int:
        """The runs before the first budget, whose losses rank the images; 0: there is no budget."""
        first = self._rounds[0][1]
        return first if len(self._rounds) > 1 else 0

    @property
    def eps(self) -> float:
        """The radius of the ball."""
        return self.phases[0].attack.eps

    @property
    def dtype(self) -> Dtype:
        """The crafting dtype of the first phase."""
        return self.phases[0].attack.dtype

    @property
    def compiled(self) -> bool:
        """True if all phases can be traced."""
        return all(phase.attack.compiled for phase in self.phases)

    @property
    def min_classes(self) -> int:
        """The fewest classes for which all phases are defined."""
        return max(phase.attack.min_classes for phase in self.phases)

    def cost_of(self, restarts: np.ndarray | int) -> np.ndarray:
        """Return the cost of an image's first `restarts` runs; see `Attack.cost_of`."""
        whole, begin = np.asarray(restarts), 0
        cost = np.zeros_like(whole, dtype=np.int64)
        for phase in self.phases:
            cost += phase.attack.cost_of(np.clip(whole - begin, 0, phase.attack.restarts))
            begin += phase.attack.restarts
        return cost

    @property
    def gradients(self) -> int:
        """The most gradients per image, on average over the images."""
        first, most = self.cost_of(np.array([self._rounds[0][1], self.restarts])).tolist()
        budget = max(budget for _, _, budget in self._rounds)
        return min(most, max(budget, first)) if budget else most

    def allowed(self, reached: RunState, restarts: int) -> np.ndarray:
        """Return how many of the first `restarts` runs each image gets, int [n], as known so far.

        Until the phases before the first budget are complete, only their runs. Then the runs of the
        next round for the images that came closest, in this order, as long as the budget suffices;
        what an image that breaks early does not use goes to the next image. The later rounds
        follow in the same way. So the runs of an image depend only on the outcomes for it and for
        the images before it, and their number only grows.
        """
        (_, first, _), *later = self._rounds
        broke, best_loss = reached.first_break, reached.best_early_loss
        if best_loss is None or restarts <= first:
            return np.full(len(broke), restarts)
        allowed = np.full(len(broke), first)
        going_on = (broke < 0) | (broke >= first)
        order = np.argsort(np.where(going_on, -best_loss, np.inf), kind="stable")
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
        """Return the first of these images for which `left` gradients suffice, and their cost."""
        broke = broke[order]
        before, whole = self.cost_of(np.array([begin, end]))
        early = (broke >= begin) & (broke < end) & settled
        taken = np.where(early, self.cost_of(broke + 1), whole) - before
        enough = np.cumsum(taken) - taken + (whole - before) <= left
        return order[enough], int(taken[enough].sum())

    def without_budget(self) -> Ensemble:
        """Return the same with every phase on all unbroken images."""
        phases = [dataclasses.replace(p, on="standing", budget=0) for p in self.phases]
        return dataclasses.replace(self, phases=tuple(phases))

    def with_dtype(self, dtype: Dtype) -> Ensemble:
        """Return the same with another crafting dtype in each phase that has the ensemble's."""
        phases = [
            dataclasses.replace(p, attack=dataclasses.replace(p.attack, dtype=dtype))
            if isinstance(p.attack, Attack) and p.attack.dtype == self.dtype
            else p
            for p in self.phases
        ]
        return dataclasses.replace(self, phases=tuple(phases))

    def non_default_settings(self, *, leaving_out: Collection[str] = ()) -> dict[str, Any]:
        """Return how it differs from the paper's PGD; see `Attack.non_default_settings`."""
        found = {"method": self.name, "dtype": self.dtype}
        plain = [*leaving_out, *(["dtype"] if self.dtype == "float32" else [])]
        return {name: value for name, value in found.items() if name not in plain}

    def non_default_text(self, *, leaving_out: Collection[str] = ()) -> str:
        """Format `non_default_settings` in one line."""
        return " ".join(
            f"{k}={v}" for k, v in self.non_default_settings(leaving_out=leaving_out).items()
        )

    @property
    def varied(self) -> dict[str, str]:
        """The settings that a table's columns vary, as text."""
        return {"eps": f"{self.eps * 255:g}", "restarts": str(self.restarts)}

    def __str__(self) -> str:
        """Describe the ensemble in one line for captions and progress."""
        words = [self.name, f"eps={self.eps * 255:g}", f"r={self.restarts}"]
        return " ".join([*words, self.non_default_text(leaving_out=("method",))]).rstrip()

    def to_json(self) -> dict[str, Any]:
        """Return the settings as results store them; see `Attack.to_json`."""
        defaults = {f.name: f.default for f in dataclasses.fields(Phase)}
        phases = [
            {n: v for n, v in vars(phase).items() if v != defaults[n]}
            | {"attack": phase.attack.to_json()}
            for phase in self.phases
        ]
        stored = {"method": self.name, "eps": self.eps, "dtype": self.dtype}
        return {**stored, "restarts": self.restarts, "phases": phases}


def as_ensemble(attack: Attack | Ensemble) -> Ensemble:
    """Return an attack as an ensemble of one phase, and an ensemble unchanged."""
    return attack if isinstance(attack, Ensemble) else Ensemble(attack.name, (Phase(attack),))


def attack_of(described: Mapping[str, Any], *, source: str = "") -> Attack | Ensemble:
    """Return the attack or ensemble of a result's settings; unknown settings are ignored.

    Args:
      described: what `to_json` wrote.
      source: where it was read from, for the error.

    Raises:
      InputError: the settings do not describe an attack.
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
        raise InputError(f"{source or 'settings'}: not a valid attack ({error})") from error
    except InputError as error:
        raise InputError(f"{source}: {error}" if source else str(error)) from error
