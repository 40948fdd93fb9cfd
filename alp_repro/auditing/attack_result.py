"""The result of one phase of an audit: which images it broke, and at which cost."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import numpy as np

from alp_repro.attacks import QUERY_COST, Attack, Ensemble, Phase
from alp_repro.evaluation import AttackRecord


@dataclasses.dataclass(frozen=True, eq=False)
class AttackResult:
    """The result of one phase of an audit, as its record has it.

    Attributes:
      phase: the attack, and the images that it is for.
      record: of the images that got it, whose places `record.indices` are. It may reach further
        than the phase's restarts.
      seconds: that the phase took, in all sessions.
      held: bool [k], of a random model: which breaks fresh passes confirm; None: all of them count.
    """

    phase: Phase
    record: AttackRecord
    seconds: float
    held: np.ndarray | None = None

    @property
    def name(self) -> str:
        """Short, for files and tests."""
        return self.phase.name

    @property
    def title(self) -> str:
        """How tables call it."""
        return self.phase.title

    @property
    def attack(self) -> Attack | Ensemble:
        """Its settings."""
        return self.phase.attack

    @property
    def attacked(self) -> np.ndarray:
        """Int [k], places of the images that it was run on."""
        return self.record.indices

    @functools.cached_property
    def first_break(self) -> np.ndarray:
        """Int [k], the restart that broke each, -1: none."""
        first = self.record.first_break
        counts = first < self.attack.restarts
        return np.where(counts if self.held is None else counts & self.held, first, -1)

    @property
    def broken(self) -> np.ndarray:
        """Bool [k]."""
        return self.first_break >= 0

    @property
    def unit(self) -> Literal["gradients", "queries"]:
        """The unit of `spent` and `costs`."""
        return "gradients" if self.attack.needs_gradient else "queries"

    @functools.cached_property
    def costs(self) -> np.ndarray:
        """Int [k], cost of each image; in gradients, a query counts as half a one."""
        unit = 1 if self.attack.needs_gradient else QUERY_COST
        return (self.record.gradients_spent(self.attack.restarts) / unit).astype(np.int64)

    @property
    def spent(self) -> int:
        """Cost of all images together."""
        return int(self.costs.sum())
