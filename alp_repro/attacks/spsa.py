"""SPSA in the L∞ ball (Uesato et al. 2018), by Cleverhans: gradients estimated from logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from alp_repro.attacks.base import ALWAYS_STORED, STEPS, Attack, Cost, Crafted
from alp_repro.attacks.draws import Target
from alp_repro.errors import InputError

if TYPE_CHECKING:
    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction

SAMPLES = 8192  # queries of a step, as in the protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class SPSA(Attack):
    """Adam on gradients estimated from many queries around a point (Uesato et al. 2018).

    The defaults are those of the protocol.

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
        """Raise InputError on settings out of range."""
        super().check()
        if not np.isfinite(self.learning_rate):
            raise InputError(f"attack learning_rate {self.learning_rate}: expected a finite number")

    @property
    def compiled(self) -> bool:
        """False: Cleverhans' loop is not compiled."""
        return False

    @property
    def cost(self) -> Cost:
        """The queries of all steps."""
        return Cost(queries=self.nb_iter * SAMPLES)

    def to_json(self) -> dict[str, Any]:
        """Return the stored settings, in which the learning rate is called `eps_iter`."""
        stored = super().to_json()
        return {**stored, "eps_iter": stored.pop("learning_rate")}

    def extra_stored_settings(self) -> Mapping[str, Any]:
        """Return the settings that every stored result has."""
        return ALWAYS_STORED

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> SPSA:
        """Return the attack of stored settings; see `Attack.from_stored`."""
        rate = {"learning_rate": stored["eps_iter"]} if "eps_iter" in stored else {}
        return super().from_stored({**stored, **rate})

    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft a batch; see `Attack.craft`."""
        from alp_repro.attacks.cleverhans_engines import cleverhans_spsa

        return cleverhans_spsa(self, logits, items)
