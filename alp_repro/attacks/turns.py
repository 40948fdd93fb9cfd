"""PGD with restarts in groups of three that complement each other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from alp_repro.attacks.draws import Draws, choose_targets
from alp_repro.attacks.pgd import PGD
from alp_repro.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
else:
    from alp_repro.lazy_tensorflow import tf

_TURN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turns(PGD):
    """PGD with restarts in groups of three.

    The first restart of a group targets a wrong class, the most likely one in the first group, the
    next in the second, and so on. The second has no target and the third has the target of the
    first; both take smaller steps, without gradient_noise and momentum.

    Attributes:
      own_step: the step size of the second and the third restart, as a fraction of eps_iter.
    """

    own_step: float = 0.125

    name: ClassVar[str] = "turns"
    is_paper_attack: ClassVar[bool] = False

    def check(self) -> None:
        """Raise InputError on settings out of range or in conflict."""
        super().check()
        if not 0 < self.own_step <= 1:
            raise InputError(f"attack own_step {self.own_step:g}: expected a number in (0, 1]")
        if self.target != "none":
            raise InputError(
                f"attack turns: expected no target, since it chooses its own, got {self.target}"
            )

    def draw(self, items: CraftItems) -> Draws:
        """Draw the start, the target and the noise of each item."""
        turn, place = items.restart // _TURN, items.restart % _TURN
        aims = choose_targets(
            "each",
            clean_logits=items.clean_logits(items.images),
            labels=items.labels,
            **{**items.random_keys, "restart": turn},
        )
        first = place == 0
        return (
            super()
            .draw(items)
            ._replace(
                targets=tf.where(place == 1, -1, aims),
                step_share=tf.where(first, 1.0, self.own_step),
                smoothing=tf.where(first, 1.0, 0.0),
            )
        )
