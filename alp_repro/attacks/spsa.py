"""SPSA in the L∞ ball (Uesato et al. 2018), as Cleverhans has it: gradients guessed from logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from alp_repro.attacks.base import FIRST_FORM, STEPS, Attack, Cost, Crafted
from alp_repro.attacks.draws import Target
from alp_repro.errors import InputError

if TYPE_CHECKING:
    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction

SAMPLES = 8192  # the protocol's, and queries of a step


@dataclasses.dataclass(frozen=True, kw_only=True)
class SPSA(Attack):
    """Adam on gradients that are guessed from many queries around a point (Uesato et al. 2018).

    The defaults are the protocol's.

    Attributes:
      learning_rate: of Adam.
      nb_iter: steps of one restart.
      target: see `GradientAttack`.
    """

    learning_rate: float = 0.01
    nb_iter: int = dataclasses.field(default=40, metadata=STEPS)
    target: Target = "none"
    dtype: Literal["float32"] = "float32"

    name: ClassVar[str] = "spsa"
    needs_gradient: ClassVar[bool] = False

    def check(self) -> None:
        """Refuse settings out of range."""
        super().check()
        if not np.isfinite(self.learning_rate):
            raise InputError(f"attack learning_rate {self.learning_rate}: expected a finite number")

    @property
    def compiled(self) -> bool:
        """Cleverhans' loop is not."""
        return False

    @property
    def cost(self) -> Cost:
        """The queries of its steps."""
        return Cost(queries=self.nb_iter * SAMPLES)

    def to_json(self) -> dict[str, Any]:
        """See `Attack.to_json`; results have always called the learning rate a step."""
        told = super().to_json()
        return {**told, "eps_iter": told.pop("learning_rate")}

    def told_besides(self) -> Mapping[str, Any]:
        """What results have said since they were first kept."""
        return FIRST_FORM

    @classmethod
    def from_stored(cls, told: Mapping[str, Any]) -> SPSA:
        """See `Attack.from_stored`."""
        rate = {"learning_rate": told["eps_iter"]} if "eps_iter" in told else {}
        return super().from_stored({**told, **rate})

    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft a batch; see `Attack.craft`."""
        from alp_repro.attacks.cleverhans_engines import cleverhans_spsa

        return cleverhans_spsa(self, logits, items)
